//! What the status says of gates and programs is what the kernel has, and what others remove is put back.

use std::time::Duration;

use anyhow::Result;
use failover_agent::control::status::Hook;
use failover_ebpf::Gate;
use failover_lab::{AgentProcess, LINK_LOCAL_GATEWAY, Lab, Scenario, TARGETS_V4, TARGETS_V6};
use failover_policy::{Family, Health};
use failover_tests::fixtures::{
    FORCED, SOON, ensure_cut, message, status, stop, uplink, wait_for_active, wait_for_health,
    wait_for_status,
};
use nix::sys::signal::Signal;

use super::fixtures::{Everything, start, start_with};

/// A host behind `lte` that no probe asks.
fn beyond() -> std::net::IpAddr {
    TARGETS_V4[1].into()
}

/// Waits until the standby's gate cuts in both families, as its status says.
fn wait_for_cuts(lab: &Lab, agent: &AgentProcess) -> Result<()> {
    failover_lab::wait_for("lte's gates cut", SOON, || {
        let cut = [TARGETS_V4[1].into(), TARGETS_V6[1].into()]
            .into_iter()
            .try_for_each(|target| ensure_cut(lab, agent, "lte", target));
        cut.map_err(|error| format!("{error:#}"))
    })?;
    let now = status(agent)?;
    let lte = uplink(&now, "lte");
    assert_eq!(lte.programs.reason, None);
    for state in [&lte.families.ipv4, &lte.families.ipv6] {
        assert_eq!(state.as_ref().map(|state| state.gate), Some(Gate::Closed));
    }
    Ok(())
}

fn ifindex(lab: &Lab, name: &str) -> Result<u64> {
    let host = lab.host().namespace();
    let links = host.exec_json("ip", &["-j", "link", "show", "dev", name])?;
    Ok(links[0]["ifindex"].as_u64().unwrap_or_default())
}

#[test]
#[ignore = "needs root"]
fn programs_that_others_remove_are_put_back() -> Scenario {
    for attach in ["tcx", "clsact"] {
        let lab = Lab::builder().build()?;
        let host = lab.host().namespace();
        let before = Everything::of(&lab)?;
        let agent = start_with(&lab, &lab.agent_config().quick().attach(attach))?;
        wait_for_cuts(&lab, &agent)?;
        let bpf = lab.agent_dirs().bpf.display().to_string();
        let lte = ifindex(&lab, "lte")?;
        let removals = match attach {
            "tcx" => vec![
                format!("bpftool link detach pinned {bpf}/links/{lte}-egress"),
                format!("rm {bpf}/links/{lte}-egress {bpf}/links/{lte}-ingress"),
                // A restart is to find everything, too.
                format!("rm -r {bpf}"),
            ],
            _ => vec![
                "tc filter del dev lte egress pref 1".to_owned(),
                "tc qdisc del dev lte clsact && tc qdisc del dev cable clsact".to_owned(),
            ],
        };
        for (number, removal) in removals.iter().enumerate() {
            host.exec("sh", &["-c", removal])?;
            wait_for_cuts(&lab, &agent)?;
            if number == 0 {
                agent.wait_for_line("what is put back", SOON, |line| {
                    let words = ["lte", "egress", "programs put back"];
                    words.iter().all(|word| message(line).contains(word))
                })?;
            }
        }
        agent.verb(&["restart"])?;
        agent.wait_for_line("that programs are adopted", SOON, |line| {
            message(line) == "lte: programs adopted"
        })?;
        wait_for_active(&agent, "cable")?;
        wait_for_cuts(&lab, &agent)?;
        // The last word is another program's.
        if attach == "clsact" {
            host.exec("tc", &["qdisc", "del", "dev", "lte", "clsact"])?;
        }
        stop(agent)?;
        before.ensure_same(&Everything::of(&lab)?)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn an_ingress_qdisc_keeps_programs_away_and_nothing_else() -> Scenario {
    let lab = Lab::builder().build()?;
    let host = lab.host().namespace();
    host.exec("tc", &["qdisc", "add", "dev", "lte", "ingress"])?;
    let before = Everything::of(&lab)?;
    let agent = lab.start_agent(&lab.agent_config().quick().attach("clsact"))?;
    wait_for_active(&agent, "cable")?;
    let now = wait_for_health(&agent, "lte", Family::V4, Health::Up)?;
    let lte = uplink(&now, "lte");
    let reason = lte.programs.reason.clone().unwrap_or_default();
    assert!(reason.contains("`ingress` on lte"), "{reason}");
    assert_eq!((lte.programs.hook, lte.gate), (None, Gate::Open));
    let cable = uplink(&now, "cable");
    assert_eq!(cable.programs.hook, Some(Hook::Clsact));
    let text = agent.verb(&["status"])?;
    assert!(text.contains("lte: no programs on lte"), "{text}");

    // It is an uplink all the same.
    let fault = lab.uplink("cable").blackhole()?;
    wait_for_active(&agent, "lte")?;
    assert!(lab.host().ping(beyond(), SOON)?.is_some());
    fault.repair()?;
    wait_for_active(&agent, "cable")?;
    let warnings = agent.log();
    let warnings = warnings
        .iter()
        .filter(|line| message(line).starts_with("lte: no programs"));
    assert_eq!(warnings.count(), 1, "once is enough");

    // The cure that it names, and back.
    host.exec("tc", &["qdisc", "del", "dev", "lte", "ingress"])?;
    wait_for_cuts(&lab, &agent)?;
    agent.signal(Signal::SIGSTOP)?;
    host.exec("tc", &["qdisc", "del", "dev", "lte", "clsact"])?;
    host.exec("tc", &["qdisc", "add", "dev", "lte", "ingress"])?;
    agent.signal(Signal::SIGCONT)?;
    wait_for_status(&agent, "no gate beside the qdisc", |now| {
        let lte = uplink(now, "lte");
        lte.programs.hook.is_none() && lte.gate == Gate::Open
    })?;
    stop(agent)?;
    before.ensure_same(&Everything::of(&lab)?)?;
    Ok(())
}

/// Gives an interface of the host its addresses and a user's routes again.
fn dress(lab: &Lab, name: &str) -> Result<()> {
    let a = lab.uplink(name).addresses();
    lab.host().namespace().ip_batch(&format!(
        "address replace {}/24 dev {name}\n\
         address replace {}/64 dev {name} nodad\n\
         link set {name} up\n\
         route replace default via {} dev {name} proto static metric 9000\n\
         route replace default via {} dev {name} proto static metric 9000",
        a.host_v4, a.host_v6, a.gateway_v4, a.gateway_v6,
    ))
}

#[test]
#[ignore = "needs root"]
fn an_interface_that_comes_back_has_its_gates_again() -> Scenario {
    let lab = Lab::builder().build()?;
    let host = lab.host().namespace();
    let mut agent = start(&lab)?;
    wait_for_cuts(&lab, &agent)?;

    // Out to another network namespace and back, between two looks of the agent's.
    let elsewhere = lab.uplink("cable").provider();
    agent.signal(Signal::SIGSTOP)?;
    host.ip_batch(&format!("link set lte netns {}", elsewhere.name()))?;
    elsewhere.ip_batch(&format!("link set lte netns {}", host.name()))?;
    dress(&lab, "lte")?;
    agent.signal(Signal::SIGCONT)?;
    wait_for_cuts(&lab, &agent)?;

    // Deleted, and another one in its place, with its name and index.
    let index = ifindex(&lab, "lte")?;
    let (provider, a) = (lab.uplink("lte").provider(), lab.uplink("lte").addresses());
    host.ip_batch(&format!(
        "link del lte\n\
         link add lte index {index} type veth peer name customer netns {}",
        provider.name()
    ))?;
    provider.ip_batch(&format!(
        "address add {}/24 dev customer\n\
         address add {}/64 dev customer nodad\n\
         address add {LINK_LOCAL_GATEWAY}/64 dev customer nodad\n\
         link set customer up",
        a.gateway_v4, a.gateway_v6,
    ))?;
    dress(&lab, "lte")?;
    wait_for_cuts(&lab, &agent)?;
    assert_eq!(ifindex(&lab, "lte")?, index);

    // The same while nobody looks at all, with the active one.
    agent.kill9()?;
    host.ip_batch("link set cable down\nlink set cable up")?;
    dress(&lab, "cable")?;
    let agent = start(&lab)?;
    wait_for_cuts(&lab, &agent)?;
    assert!(lab.host().ping(beyond(), SOON)?.is_some());
    stop(agent)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn gates_that_were_closed_in_favour_of_nobody_open_at_the_start() -> Scenario {
    let lab = Lab::builder().build()?;
    let host = lab.host().namespace();
    let mut agent = start(&lab)?;
    wait_for_cuts(&lab, &agent)?;
    agent.kill9()?;
    // Nothing of its routes is left, and no uplink can be proven: the targets do not answer, all else does.
    let faults = ["cable", "lte"].map(|name| {
        let target = TARGETS_V4[0].into();
        lab.uplink(name).towards(target).blackhole()
    });
    let a = lab.uplink("lte").addresses();
    host.exec(
        "sh",
        &[
            "-c",
            &format!(
                "ip -4 route flush proto 136; ip -6 route flush proto 136; ip -4 route flush default; ip -6 route flush default; \
                 ip route add default via {} dev lte && ip route add default via {} dev lte",
                a.gateway_v4, a.gateway_v6
            ),
        ],
    )?;
    let agent = lab.start_agent(&lab.agent_config().quick())?;
    // Long before anything is known of the uplinks, and long before the lease would have been past.
    let now = status(&agent)?;
    assert_eq!(now.active, None);
    for name in ["cable", "lte"] {
        let families = &uplink(&now, name).families;
        for state in [&families.ipv4, &families.ipv6].into_iter().flatten() {
            assert_eq!(state.gate, Gate::Open, "{name}");
        }
    }
    for target in [TARGETS_V4[1].into(), TARGETS_V6[1].into()] {
        let answer = lab.host().ping(target, Duration::from_secs(2))?;
        assert!(answer.is_some(), "{target}");
    }
    wait_for_health(&agent, "lte", Family::V4, Health::Down)?;
    assert!(lab.host().ping(beyond(), FORCED * 20)?.is_some());
    for fault in faults {
        fault?.repair()?;
    }
    wait_for_active(&agent, "cable")?;
    wait_for_cuts(&lab, &agent)?;
    stop(agent)?;
    Ok(())
}
