//! A host with nothing wrong, and what the doctor must not do.

use anyhow::Result;
use failover_lab::{Lab, Scenario};
use failover_tests::fixtures::SOON;

use super::diagnosis::{Diagnosis, FLAGS, apply, doctor, probed, probed_both};

/// Everything that a diagnosis must leave alone.
fn state(lab: &Lab) -> Result<(failover_lab::Snapshot, Vec<String>)> {
    let host = lab.host().namespace();
    let pattern = r"^net\.ipv[46]\.(conf|ip_forward)";
    let settings = host.exec("sysctl", &["-a", "--pattern", pattern])?;
    let settings = settings.lines().map(ToOwned::to_owned).collect();
    Ok((lab.host().snapshot()?, settings))
}

#[test]
#[ignore = "needs root"]
fn a_healthy_host_has_no_findings_and_is_left_as_it_was() -> Scenario {
    let lab = Lab::builder().build()?;
    let (before, settings) = state(&lab)?;
    let diagnosis = Diagnosis::make(&lab, &probed_both(&lab))?;
    diagnosis.assert_healthy();
    assert_eq!(diagnosis.report["version"], 1);
    let checks = diagnosis.report["checks_run"].as_array().unwrap().len();
    let (after, same) = state(&lab)?;
    before.ensure_same(&after)?;
    assert!(settings.len() > 100, "{settings:?}");
    assert_eq!(settings, same);

    let output = doctor(&lab, &FLAGS)?;
    let text = String::from_utf8(output.stdout)?;
    assert_eq!(text, format!("nothing found, {checks} checks\n"));
    assert_eq!(output.status.code(), Some(0));
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn a_running_agent_is_no_finding_and_knows_its_file() -> Scenario {
    let lab = Lab::builder().build()?;
    let nobody = doctor(&lab, &[])?;
    let error = String::from_utf8(nobody.stderr)?;
    assert_eq!(nobody.status.code(), Some(11), "{error}");
    assert!(error.contains("give --config FILE"), "{error}");

    let agent = lab.start_agent(&probed_both(&lab))?;
    agent.wait_for_status("both are Up", SOON, |status| {
        let mut uplinks = status["uplinks"].as_array().into_iter().flatten();
        uplinks.all(|uplink| uplink["health"] == "Up") && status["active"] == "cable"
    })?;
    // Strict filtering is content with the agent's rules.
    lab.host()
        .namespace()
        .set_sysctl("net/ipv4/conf/lte/rp_filter", "1")?;
    let (before, settings) = state(&lab)?;
    Diagnosis::with(&lab, &[])?.assert_healthy();
    let (after, same) = state(&lab)?;
    before.ensure_same(&after)?;
    assert_eq!(settings, same);
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn an_agent_with_flags_has_no_file() -> Scenario {
    let lab = Lab::builder().build()?;
    let agent = lab.spawn_agent(&[&["run"], &FLAGS[..]].concat())?;
    agent.wait_for_status("anything", SOON, |_| true)?;
    let output = doctor(&lab, &[])?;
    let error = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(11), "{error}");
    assert!(error.contains("configured by flags"), "{error}");
    assert_eq!(doctor(&lab, &FLAGS)?.status.code(), Some(0));
    // Half of the flags is no request for the file.
    let half = doctor(&lab, &["--target", "192.0.2.1"])?;
    assert_eq!(half.status.code(), Some(14));
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn no_bpf_file_system_is_found_and_cured() -> Scenario {
    /// Undoes the cure.
    struct Mount(std::path::PathBuf);
    impl Drop for Mount {
        fn drop(&mut self) {
            // Not mounted if the test has failed before.
            nix::mount::umount(&self.0).ok();
        }
    }

    let lab = Lab::builder().build()?;
    let mount = Mount(lab.agent_dirs().scratch.join("no-bpf"));
    std::fs::create_dir(&mount.0)?;
    let config = probed(&lab).bpf_dir(&mount.0.join("agent"));
    let file = lab.write_config(&config)?;
    let examine = || -> Result<Diagnosis> {
        let mut command = lab.host().namespace().command(failover_lab::agent_path()?);
        let output = command
            .args(["doctor", "--json", "--config"])
            .arg(&file)
            .output()?;
        Ok(Diagnosis {
            code: output.status.code().unwrap(),
            report: serde_json::from_slice(&output.stdout)?,
        })
    };
    let diagnosis = examine()?;
    assert_eq!(diagnosis.code, 29);
    apply(&lab, diagnosis.only("requirements", "error"))?;
    examine()?.assert_healthy();
    Ok(())
}
