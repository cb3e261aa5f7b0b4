//! Turns the ruleset, as `nft -j` prints it, into a [`Firewall`].

use failover_policy::PerFamily;
use serde_json::Value;

use super::{Chain, Firewall, Flowtable, MarkRule, Nat, Out, Rewriting};

/// Whether a table applies to IPv4 and to IPv6.
pub(super) fn families(table_family: &str) -> PerFamily<bool> {
    PerFamily::new(
        matches!(table_family, "ip" | "inet"),
        matches!(table_family, "ip6" | "inet"),
    )
}

/// Reads the whole ruleset.
pub(super) fn parse(ruleset: &Value) -> Firewall {
    let entries = || ruleset["nftables"].as_array().into_iter().flatten();
    let base_chain = |rule: &Value| {
        entries().map(|entry| &entry["chain"]).find(|chain| {
            ["family", "table"]
                .iter()
                .all(|key| chain[key] == rule[key])
                && chain["name"] == rule["chain"]
                && !chain["hook"].is_null()
        })
    };
    let mut firewall = Firewall::default();
    // Chains in which a rule has accepted packets with some mark: the rules behind it may not concern the probes.
    let mut spared: Vec<Chain> = Vec::new();
    for entry in entries() {
        let chain = &entry["chain"];
        if chain["hook"] == "output" && chain["type"] != "nat" {
            firewall.output.push(chain_of(chain, "name"));
        }
        firewall.flowtables.extend(flowtable(&entry["flowtable"]));
        let rule = &entry["rule"];
        let Some(statements) = rule["expr"].as_array() else {
            continue;
        };
        let base = base_chain(rule);
        let hook = base.and_then(|chain| chain["hook"].as_str());
        if hook == Some("output") {
            let chain = chain_of(rule, "chain");
            if spares_marked(statements) {
                spared.push(chain);
            } else if let Some(rewriting) = rewrites_mark(statements)
                && !spared.contains(&chain)
            {
                firewall.marks.push(MarkRule { chain, rewriting });
            }
        }
        if statements.iter().any(translates) {
            firewall.nat.push(nat(rule, statements, base.is_some()));
        }
        // It is unknown which packets enter a chain without a hook.
        let forwarded = !matches!(hook, Some("input" | "output"));
        firewall.drops_invalid |= forwarded && drops_invalid(statements);
        firewall.clamps_mss |= forwarded && statements.iter().any(clamps_mss);
    }
    firewall
}

/// The chain that `object` is or belongs to; the field `name` holds its name.
fn chain_of(object: &Value, name: &str) -> Chain {
    let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
    Chain {
        family: text("family"),
        table: text("table"),
        name: text(name),
    }
}

fn flowtable(object: &Value) -> Option<Flowtable> {
    let chain = chain_of(object, "name");
    let list = |value: &Value| -> Vec<String> {
        match value {
            Value::String(word) => vec![word.clone()],
            _ => {
                let words = value.as_array().into_iter().flatten();
                words
                    .filter_map(|word| Some(word.as_str()?.to_owned()))
                    .collect()
            }
        }
    };
    (!chain.name.is_empty()).then(|| Flowtable {
        family: chain.family,
        table: chain.table,
        name: chain.name,
        devices: list(&object["dev"]),
    })
}

/// Whether packets with some mark skip the rest of a chain.
fn spares_marked(statements: &[Value]) -> bool {
    let leaves =
        |statement: &Value| statement.get("accept").is_some() || statement.get("return").is_some();
    let marked = |statement: &Value| {
        statement["match"]["left"]["meta"]["key"] == "mark"
            || statement["xt"]["type"] == "match" && statement["xt"]["name"] == "mark"
    };
    statements.iter().any(leaves) && statements.iter().any(marked)
}

/// Whether a rule of an output chain changes the probes' mark. Conditions that could spare the probes count as if they did, and so does a
/// value that is computed from the mark itself.
fn rewrites_mark(statements: &[Value]) -> Option<Rewriting> {
    let is_mark = |value: &Value| value["meta"]["key"] == "mark";
    let by_iptables = statements.iter().any(|statement| {
        statement["xt"]["type"] == "target"
            && matches!(statement["xt"]["name"].as_str(), Some("MARK" | "CONNMARK"))
    });
    if by_iptables {
        return Some(Rewriting::Perhaps);
    }
    for statement in statements {
        let test = &statement["match"];
        if !test.is_null() && !is_about_interface(&test["left"]) {
            return None;
        }
        let change = &statement["mangle"];
        if is_mark(&change["key"]) {
            let keeps = mentions_mark(&change["value"]);
            return (!keeps).then_some(Rewriting::Every);
        }
    }
    None
}

/// Whether a value is computed from the packet's own mark.
fn mentions_mark(value: &Value) -> bool {
    let has = match value {
        Value::Array(parts) => parts.iter().any(mentions_mark),
        Value::Object(parts) => parts.values().any(mentions_mark),
        _ => false,
    };
    has || value["meta"]["key"] == "mark"
}

/// Whether a condition concerns the interface or the family only.
fn is_about_interface(left: &Value) -> bool {
    matches!(
        left["meta"]["key"].as_str(),
        Some("oifname" | "oif" | "iifname" | "iif" | "nfproto")
    )
}

fn translates(statement: &Value) -> bool {
    let has = |key: &str| statement.get(key).is_some();
    has("masquerade")
        || has("snat")
        || matches!(
            statement["xt"]["name"].as_str(),
            Some("MASQUERADE" | "SNAT")
        )
}

fn nat(rule: &Value, statements: &[Value], base: bool) -> Nat {
    let mut nat = Nat {
        families: families(rule["family"].as_str().unwrap_or_default()),
        out: Out::Any,
        to: statements.iter().find_map(|statement| {
            let address = statement["snat"]["addr"].as_str()?;
            address.parse().ok()
        }),
    };
    for test in statements.iter().map(|statement| &statement["match"]) {
        let (left, right) = (&test["left"], &test["right"]);
        let protocol = match (left["meta"]["key"].as_str(), right.as_str()) {
            (Some("nfproto"), Some("ipv4")) => Some("ip"),
            (Some("nfproto"), Some("ipv6")) => Some("ip6"),
            _ => left["payload"]["protocol"].as_str(),
        };
        if let Some(protocol @ ("ip" | "ip6")) = protocol {
            let only = families(protocol);
            nat.families = PerFamily::from_fn(|family| nat.families[family] && only[family]);
        }
        // The name may also be checked where the chain is called from.
        if base
            && matches!(left["meta"]["key"].as_str(), Some("oifname" | "oif"))
            && let Some(names) = names(right)
        {
            nat.out = match test["op"].as_str() {
                Some("!=") => Out::Except(names),
                _ => Out::Only(names),
            };
        }
    }
    nat
}

/// A name or a set of names; `None` for a named set, whose elements are elsewhere.
fn names(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(name) if name.starts_with('@') => None,
        Value::String(name) => Some(vec![name.clone()]),
        _ => {
            let names = value["set"].as_array()?.iter();
            names.map(|name| Some(name.as_str()?.to_owned())).collect()
        }
    }
}

fn drops_invalid(statements: &[Value]) -> bool {
    let mentions = |value: &Value| match value {
        Value::Array(states) => states.contains(&"invalid".into()),
        Value::Object(_) => {
            let states = value["set"].as_array();
            states.is_some_and(|states| states.contains(&"invalid".into()))
        }
        state => state == "invalid",
    };
    let of_state = |value: &Value| value["ct"]["key"] == "state";
    let invalid = statements.iter().any(|statement| {
        let test = &statement["match"];
        of_state(&test["left"]) && test["op"] != "!=" && mentions(&test["right"])
            || statement["xt"]["type"] == "match"
                && matches!(
                    statement["xt"]["name"].as_str(),
                    Some("conntrack" | "state")
                )
    });
    let drops = |statement: &Value| statement.get("drop").is_some();
    invalid && statements.iter().any(drops)
        || statements
            .iter()
            .map(|statement| &statement["vmap"])
            .any(|map| {
                let verdicts = map["data"]["set"].as_array().into_iter().flatten();
                of_state(&map["key"])
                    && verdicts
                        .into_iter()
                        .any(|pair| mentions(&pair[0]) && drops(&pair[1]))
            })
}

fn clamps_mss(statement: &Value) -> bool {
    statement["mangle"]["key"]["tcp option"]["name"] == "maxseg"
        || statement["xt"]["name"] == "TCPMSS"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use failover_policy::Family;

    /// A base chain of an `inet` table with one rule.
    fn one_rule(kind: &str, hook: &str, rule: &Value) -> Firewall {
        parse(&json!({"nftables": [
            {"metainfo": {"json_schema_version": 1}},
            {"table": {"family": "inet", "name": "t"}},
            {"chain": {"family": "inet", "table": "t", "name": "c", "type": kind, "hook": hook}},
            {"rule": {"family": "inet", "table": "t", "chain": "c", "expr": rule}},
        ]}))
    }

    fn oif(op: &str, right: &Value) -> Value {
        json!({"match": {"op": op, "left": {"meta": {"key": "oifname"}}, "right": right}})
    }

    #[test]
    fn translation_is_told_by_interface_and_family() {
        let masquerade = json!({"masquerade": null});
        let only = one_rule(
            "nat",
            "postrouting",
            &json!([oif("==", &json!("lte")), masquerade]),
        );
        assert!(only.translates(Family::V4, "lte"));
        assert!(only.translates(Family::V6, "lte"));
        assert!(!only.translates(Family::V4, "cable"));

        let set = json!({"set": ["cable", "wwan*"]});
        let set = one_rule("nat", "postrouting", &json!([oif("==", &set), masquerade]));
        assert!(set.translates(Family::V4, "wwan3"));
        assert!(!set.translates(Family::V4, "lte"));

        let v4 = json!({"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "10.0.0.1"}});
        let rule = json!([oif("!=", &json!("lan")), v4, {"snat": {"addr": "192.0.2.1"}}]);
        let except = one_rule("nat", "postrouting", &rule);
        assert!(except.translates(Family::V4, "lte"));
        assert!(!except.translates(Family::V4, "lan"));
        assert!(!except.translates(Family::V6, "lte"));

        assert!(!Firewall::default().translates(Family::V4, "lte"));
    }

    #[test]
    fn rules_of_iptables_are_understood_as_far_as_they_go() {
        let rule =
            json!([oif("==", &json!("lte")), {"xt": {"type": "target", "name": "MASQUERADE"}}]);
        assert!(one_rule("nat", "postrouting", &rule).translates(Family::V4, "lte"));
        let rule = json!([{"xt": {"type": "match", "name": "conntrack"}}, {"drop": null}]);
        assert!(one_rule("filter", "forward", &rule).drops_invalid);
        let rule = json!([{"xt": {"type": "target", "name": "TCPMSS"}}]);
        assert!(one_rule("filter", "forward", &rule).clamps_mss);
    }

    #[test]
    fn dropping_the_invalid_has_several_forms_and_must_be_on_the_way() {
        let state = |right: &Value| json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": right}});
        let drop = json!({"drop": null});
        let plain = json!([state(&json!("invalid")), drop]);
        assert!(one_rule("filter", "forward", &plain).drops_invalid);
        assert!(!one_rule("filter", "input", &plain).drops_invalid);
        let other = json!([state(&json!(["new", "established"])), drop]);
        assert!(!one_rule("filter", "forward", &other).drops_invalid);
        let map = json!([{"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["invalid", {"drop": null}], ["new", {"accept": null}]]}}}]);
        assert!(one_rule("filter", "forward", &map).drops_invalid);
    }

    #[test]
    fn marks_count_as_kept_where_a_rule_may_spare_them() {
        let set =
            |value: &Value| json!({"mangle": {"key": {"meta": {"key": "mark"}}, "value": value}});
        let of = |rule: &Value| {
            let firewall = one_rule("route", "output", rule);
            firewall.marks.first().map(|rule| rule.rewriting)
        };
        let restore = set(&json!({"ct": {"key": "mark"}}));
        assert_eq!(of(&json!([restore])), Some(Rewriting::Every));
        assert_eq!(
            of(&json!([oif("==", &json!("lte")), set(&json!(7))])),
            Some(Rewriting::Every)
        );
        let masked = json!({"|": [{"&": [{"meta": {"key": "mark"}}, 65535]}, 65536]});
        assert_eq!(of(&json!([set(&masked)])), None);
        let unmarked =
            json!({"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": 0}});
        assert_eq!(of(&json!([unmarked, restore])), None);
        let port = json!({"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 22}});
        assert_eq!(of(&json!([port, restore])), None);
        // The object whose mark is set: the connection.
        let save = json!([{"mangle": {"key": {"ct": {"key": "mark"}}, "value": {"meta": {"key": "mark"}}}}]);
        assert_eq!(of(&save), None);
        let spared = json!([{"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": 64017}}, {"accept": null}]);
        assert_eq!(of(&spared), None);
        let iptables = json!([{"xt": {"type": "target", "name": "CONNMARK"}}]);
        assert_eq!(of(&iptables), Some(Rewriting::Perhaps));
        assert_eq!(one_rule("filter", "forward", &json!([restore])).marks, []);
    }

    #[test]
    fn addresses_of_nat_are_named_once_with_their_interface() {
        let rule = json!([oif("==", &json!("lte")), {"snat": {"addr": "10.0.0.9"}}]);
        let addresses = one_rule("nat", "postrouting", &rule).translated_to();
        assert_eq!(addresses.len(), 1);
        assert_eq!(addresses[0].ip.to_string(), "10.0.0.9");
        assert!(addresses[0].out_by("lte"));
        assert!(!addresses[0].out_by("cable"));
        let map = json!([{"snat": {"addr": {"map": {"key": {"meta": {"key": "oifname"}}, "data": "@m"}}}}]);
        assert_eq!(one_rule("nat", "postrouting", &map).translated_to(), []);
    }

    #[test]
    fn flowtables_have_one_device_or_several() {
        let parse_one =
            |object: &Value| parse(&json!({"nftables": [{"flowtable": object}]})).flowtables;
        let several = parse_one(
            &json!({"family": "inet", "table": "t", "name": "f", "dev": ["cable", "lan"]}),
        );
        assert_eq!(several[0].devices, ["cable", "lan"]);
        let one = parse_one(&json!({"family": "inet", "table": "t", "name": "f", "dev": "cable"}));
        assert_eq!(one[0].devices, ["cable"]);
    }

    #[test]
    fn only_chains_that_can_refuse_a_probe_are_output_chains() {
        let rule = json!([{"drop": null}]);
        let filter = one_rule("filter", "output", &rule);
        assert_eq!(filter.output_chains(Family::V6).count(), 1);
        assert_eq!(
            one_rule("nat", "output", &rule)
                .output_chains(Family::V4)
                .count(),
            0
        );
        assert_eq!(
            one_rule("filter", "forward", &rule)
                .output_chains(Family::V4)
                .count(),
            0
        );
    }
}
