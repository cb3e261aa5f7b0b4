//! What nftables (and iptables on top of it) do to forwarded traffic and to probes, read with `nft` as JSON (libnftables-json(5)).
//!
//! Rules that nobody but their author can understand count in his favour: no finding is better than a wrong one.

use std::{fs, process::Command};

use serde_json::Value;

use crate::policy::Family;

/// Tables of the older iptables, which `nft` does not see.
const LEGACY_TABLES: [&str; 2] = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Firewall {
    pub(super) nat: Vec<Nat>,
    /// Forwarded packets that belong to no tracked connection are dropped.
    pub(super) drops_invalid: bool,
    /// The segment size of forwarded TCP connections is fitted to the path.
    pub(super) clamps_mss: bool,
    /// Chains through which this host's own packets go.
    pub(super) output: Vec<Chain>,
}

/// A rule that gives forwarded packets a source address of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Nat {
    families: [bool; 2],
    out: Out,
}

/// By which interfaces packets must leave for a rule to apply.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Out {
    Any,
    Only(Vec<String>),
    Except(Vec<String>),
}

/// A chain, as `nft` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) family: String,
    pub(super) table: String,
    pub(super) name: String,
}

/// Reads it; None where `nft` is not installed, cannot do it (no JSON, a kernel without nftables), or does not see everything.
pub(super) fn read() -> Option<Firewall> {
    let legacy = |path| fs::read_to_string(path).is_ok_and(|names| !names.is_empty());
    if LEGACY_TABLES.into_iter().any(legacy) {
        return None;
    }
    let list = Command::new("nft").args(["-j", "list", "ruleset"]).output();
    let output = list.ok().filter(|output| output.status.success())?;
    Some(parse(&serde_json::from_slice(&output.stdout).ok()?))
}

impl Firewall {
    /// Whether what is forwarded by `interface` gets an address of this host.
    pub(super) fn translates(&self, family: Family, interface: &str) -> bool {
        self.nat.iter().any(|nat| {
            nat.families[family as usize]
                && match &nat.out {
                    Out::Any => true,
                    Out::Only(names) => names.iter().any(|name| matches(name, interface)),
                    Out::Except(names) => !names.iter().any(|name| matches(name, interface)),
                }
        })
    }

    /// The chains of this host's own packets of one family.
    pub(super) fn output_chains(&self, family: Family) -> impl Iterator<Item = &Chain> {
        self.output
            .iter()
            .filter(move |chain| families(&chain.family)[family as usize])
    }
}

/// Whether a name of a rule, which may end with an asterisk, means an interface.
fn matches(pattern: &str, interface: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => interface.starts_with(prefix),
        None => pattern == interface,
    }
}

fn families(table_family: &str) -> [bool; 2] {
    [
        matches!(table_family, "ip" | "inet"),
        matches!(table_family, "ip6" | "inet"),
    ]
}

fn parse(ruleset: &Value) -> Firewall {
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
    for entry in entries() {
        let chain = &entry["chain"];
        if chain["hook"] == "output" && chain["type"] != "nat" {
            let text = |key: &str| chain[key].as_str().unwrap_or_default().to_owned();
            firewall.output.push(Chain {
                family: text("family"),
                table: text("table"),
                name: text("name"),
            });
        }
        let rule = &entry["rule"];
        let Some(statements) = rule["expr"].as_array() else {
            continue;
        };
        let base = base_chain(rule);
        let hook = base.and_then(|chain| chain["hook"].as_str());
        if statements.iter().any(translates) {
            firewall.nat.push(nat(rule, statements, base.is_some()));
        }
        // Of a chain without a hook one cannot tell who goes through it.
        let forwarded = !matches!(hook, Some("input" | "output"));
        firewall.drops_invalid |= forwarded && drops_invalid(statements);
        firewall.clamps_mss |= forwarded && statements.iter().any(clamps_mss);
    }
    firewall
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
            nat.families = [nat.families[0] && only[0], nat.families[1] && only[1]];
        }
        // The name may also be asked where the chain is called from.
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

/// A name or a set of names; None for a named set, whose elements stand elsewhere.
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

/// A rule that translates everything, for tests of others.
#[cfg(test)]
pub(super) fn masquerade_everywhere() -> Nat {
    Nat {
        families: [true, true],
        out: Out::Any,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
