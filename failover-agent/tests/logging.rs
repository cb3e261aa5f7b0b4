//! The logger of a whole process: what libraries say through `log` comes out as our own lines do, on standard error.

use std::process::{Command, Output};

use failover_agent::{cli::LogFormat, failure::Failure, logging};

const CHILD_VARIABLE: &str = "FAILOVER_TEST_LOGGING_CHILD";

/// Not a test of its own: the process that the others look at.
#[test]
fn speak_in_child_process() {
    if std::env::var_os(CHILD_VARIABLE).is_none() {
        return;
    }
    logging::init(1, LogFormat::Json).unwrap();
    log::info!(target: "failover_ebpf", "said through log");
    tracing::debug!(target: "failover_agent", "said through tracing");
    // As `main` does: a thread writes the lines.
    logging::flush(None);
}

fn child(rust_log: Option<&str>) -> Output {
    let mut command = Command::new(std::env::current_exe().expect("this test has a file"));
    command
        .args(["--exact", "speak_in_child_process", "--nocapture"])
        .env(CHILD_VARIABLE, "1")
        .env_remove("RUST_LOG");
    if let Some(rust_log) = rust_log {
        command.env("RUST_LOG", rust_log);
    }
    command.output().expect("this test can be started again")
}

fn messages(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stderr)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .map(|line| format!("{} {}", line["target"], line["message"]))
        .collect()
}

#[test]
fn log_and_tracing_meet_on_standard_error() {
    let expected = [
        r#""failover_ebpf" "said through log""#,
        r#""failover_agent" "said through tracing""#,
    ];
    assert_eq!(messages(&child(None)), expected);
}

#[test]
fn rust_log_wins_over_verbosity() {
    assert_eq!(
        messages(&child(Some("failover_ebpf=info"))),
        [r#""failover_ebpf" "said through log""#]
    );
}

#[test]
fn a_second_logger_is_refused() {
    logging::init(0, LogFormat::Text).unwrap();
    let error = logging::init(0, LogFormat::Text).unwrap_err();
    assert!(error.downcast_ref::<Failure>().is_none(), "{error:#}");
}
