//! Programs of others on the uplinks.

use failover_agent::{
    config::AttachMode,
    datapath::{Datapath, LinkLayer, Options},
};
use failover_lab::{Lab, Scenario};
use failover_tests::fixtures::SOON;
use nix::{net::if_::if_nametoindex, sys::signal::Signal};

use super::{
    diagnosis::{Diagnosis, probed, problem},
    xdp,
};

#[test]
#[ignore = "needs root"]
fn programs_before_the_gate_are_warnings_others_hints() -> Scenario {
    let lab = Lab::builder().build()?;
    let host = lab.host().namespace();
    for arguments in [
        "qdisc add dev cable clsact",
        "filter add dev cable egress pref 10 protocol all u32 match u32 0 0 flowid 1:1",
    ] {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        host.exec("tc", &arguments)?;
    }
    let diagnosis = Diagnosis::make(&lab, &probed(&lab))?;
    let finding = diagnosis.only("other-programs", "hint");
    assert!(
        problem(finding).contains("filter u32 (pref 10)"),
        "{finding}"
    );

    let mut agent = lab.start_agent(&probed(&lab))?;
    Diagnosis::with(&lab, &[])?.only("other-programs", "hint");

    // As another product's programs, with pins of their own, ours will do. They go before all that are there.
    let options = Options {
        bpf_dir: lab.agent_dirs().bpf.with_file_name("stranger"),
        attach: AttachMode::Tcx,
        probe_mark: 0,
    };
    let stranger = host.run(|| {
        let mut datapath = Datapath::open(&options)?;
        datapath.attach(if_nametoindex("lte")?, LinkLayer::Ethernet)?;
        Ok(datapath)
    })?;
    let diagnosis = Diagnosis::with(&lab, &[])?;
    let warnings: Vec<_> = diagnosis
        .of("other-programs")
        .into_iter()
        .filter(|finding| finding["severity"] == "warning")
        .collect();
    assert_eq!(warnings.len(), 1, "{diagnosis:#?}");
    assert_eq!(warnings[0]["uplink"], "lte");

    // The cure: stop, start.
    agent.signal(Signal::SIGTERM)?;
    agent.wait_exit(SOON)?;
    let _agent = lab.start_agent(&probed(&lab))?;
    let diagnosis = Diagnosis::with(&lab, &[])?;
    assert_eq!(diagnosis.code, 0, "{diagnosis:#?}");
    assert_eq!(diagnosis.of("other-programs").len(), 3, "{diagnosis:#?}");
    stranger.remove().into_result()?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn clsact_programs_of_the_agent_are_its_own() -> Scenario {
    let lab = Lab::builder().build()?;
    let config = probed(&lab).attach("clsact");
    let agent = lab.start_agent(&config)?;
    agent.wait_for_status("both are Up", SOON, |status| {
        let mut uplinks = status["uplinks"].as_array().into_iter().flatten();
        uplinks.all(|uplink| uplink["health"] == "Up")
    })?;
    Diagnosis::with(&lab, &[])?.assert_healthy();
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn an_xdp_program_is_a_hint() -> Scenario {
    let lab = Lab::builder().build()?;
    let link = lab.host().namespace().run(|| xdp::attach("lte"))?;
    let diagnosis = Diagnosis::make(&lab, &probed(&lab))?;
    let finding = diagnosis.only("other-programs", "hint");
    assert!(
        problem(finding).starts_with("XDP program (id "),
        "{finding}"
    );
    assert_eq!(finding["uplink"], "lte");
    drop(link);
    Diagnosis::make(&lab, &probed(&lab))?.assert_healthy();
    Ok(())
}
