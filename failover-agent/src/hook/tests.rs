//! The runner with real programs: shell scripts.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{sys::signal::kill, unistd::Pid};
use tokio::time::{Instant, sleep};

use super::*;

/// Long enough for everything that should happen, even on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// How long something is watched that should not happen.
const WHILE: Duration = Duration::from_millis(300);

/// A directory with scripts and what they write.
struct Scripts(tempfile::TempDir);

impl Scripts {
    fn new() -> Self {
        Scripts(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A program that runs a script, with the directory of its files as `$1`.
    fn program(&self, script: &str) -> Program {
        let dir = self.0.path().to_str().unwrap().to_owned();
        let command = ["/bin/sh", "-c", script, "hook", &dir];
        Program {
            name: "hooks.on_switch".to_owned(),
            command: command.map(ToOwned::to_owned).to_vec(),
            timeout: SOON,
        }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Waits until a file ends with these words.
    async fn wait_for(&self, name: &str, end: &str) -> String {
        let begun = Instant::now();
        loop {
            let text = self.read(name);
            if text.trim_end().ends_with(end) {
                return text;
            }
            assert!(begun.elapsed() < SOON, "{name} is {text:?}, not {end:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

fn is_there(pid: &str) -> bool {
    let pid: i32 = pid.trim().parse().unwrap();
    // A zombie is gone, too: another process has to wait for it.
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    kill(Pid::from_raw(pid), None).is_ok() && stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// A failover between uplinks whose interfaces have their names.
fn to(uplink: &str, previous: &str, family: &'static str) -> Switch {
    Switch {
        family,
        reason: "failover".to_owned(),
        active: vec![active(uplink, uplink, None)],
        previous: vec![previous.to_owned()],
    }
}

fn active(name: &str, interface: &str, gateway: Option<[u8; 4]>) -> Uplink {
    Uplink {
        name: name.to_owned(),
        interface: interface.to_owned(),
        gateway: gateway.map(IpAddr::from),
    }
}

#[tokio::test]
async fn a_balance_group_is_passed_as_lists() {
    let scripts = Scripts::new();
    let mut runner = Runner::new();
    let switch = Switch {
        reason: "start-up".to_owned(),
        active: vec![
            active("cable", "eth0", Some([192, 0, 2, 1])),
            active("dsl", "ppp0", None),
            active("lte", "wwan0", Some([10, 0, 0, 1])),
        ],
        previous: Vec::new(),
        ..to("", "", "ipv4")
    };
    runner.on_switch(
        scripts.program("env -u PWD -u _ -u SHLVL -u OLDPWD | sort > $1/env; pwd >> $1/env; echo done >> $1/env"),
        switch,
    );
    let text = scripts.wait_for("env", "done").await;
    let inherited = ["PATH=", "HOME=", "LANG="];
    let own = |line: &&str| !inherited.iter().any(|key| line.starts_with(key));
    let lines: Vec<&str> = text.lines().filter(own).collect();
    assert_eq!(
        lines,
        [
            "FAMILY=ipv4",
            "GATEWAY=192.0.2.1,,10.0.0.1",
            "INTERFACE=eth0,ppp0,wwan0",
            "PREVIOUS=",
            "REASON=start-up",
            "UPLINK=cable,dsl,lte",
            "/",
            "done",
        ]
    );
    assert!(text.contains("PATH="), "{text}");
    runner.stop().await;
}

#[tokio::test]
async fn the_newest_switch_of_each_family_is_passed_on() {
    let scripts = Scripts::new();
    let script = "echo $FAMILY $PREVIOUS-$UPLINK >> $1/runs; while ! test -e $1/go; do sleep 0.01; done; echo end >> $1/runs";
    let mut runner = Runner::new();
    let mut order = |previous, uplink, family| {
        runner.on_switch(scripts.program(script), to(uplink, previous, family));
    };
    order("a", "b", "ipv4");
    scripts.wait_for("runs", "a-b").await;
    order("b", "c", "ipv4");
    order("x", "y", "ipv6");
    order("c", "d", "ipv4");
    order("d", "e", "ipv4");
    sleep(WHILE).await;
    assert_eq!(scripts.read("runs"), "ipv4 a-b\n", "one at a time");
    fs::write(scripts.path("go"), "").unwrap();
    let runs = scripts.wait_for("runs", "ipv4 b-e\nend").await;
    assert_eq!(
        runs.lines().collect::<Vec<_>>(),
        ["ipv4 a-b", "end", "ipv6 x-y", "end", "ipv4 b-e", "end"]
    );
    runner.stop().await;
}

#[tokio::test]
async fn a_recovery_never_overlaps_itself_but_others() {
    let scripts = Scripts::new();
    let script = "echo $UPLINK $INTERFACE $REASON >> $1/runs; while ! test -e $1/go; do sleep 0.01; done; echo end >> $1/ends";
    let mut runner = Runner::new();
    runner.recover(scripts.program(script), "lte", "wwan0");
    scripts.wait_for("runs", "lte wwan0 recover").await;
    runner.recover(scripts.program(script), "lte", "wwan0");
    runner.recover(scripts.program(script), "dsl", "ppp0");
    scripts.wait_for("runs", "dsl ppp0 recover").await;
    fs::write(scripts.path("go"), "").unwrap();
    scripts.wait_for("ends", "end\nend").await;
    sleep(WHILE).await;
    assert_eq!(
        scripts.read("runs"),
        "lte wwan0 recover\ndsl ppp0 recover\n"
    );
    // Now that it has ended, it may run again.
    runner.recover(scripts.program(script), "lte", "wwan0");
    scripts
        .wait_for("runs", "dsl ppp0 recover\nlte wwan0 recover")
        .await;
    runner.stop().await;
}

#[tokio::test]
async fn a_program_that_hangs_is_ended_with_its_children() {
    let scripts = Scripts::new();
    // Neither reacts to SIGTERM.
    let script = "trap '' TERM; sleep 1000 & echo $! > $1/child; echo $$ > $1/leader; echo written > $1/ready; wait; sleep 1000";
    let mut runner = Runner::new();
    let program = Program {
        timeout: Duration::from_millis(300),
        ..scripts.program(script)
    };
    runner.on_switch(program, to("a", "", "ipv4"));
    scripts.wait_for("ready", "written").await;
    let (leader, child) = (scripts.read("leader"), scripts.read("child"));
    let begun = Instant::now();
    while is_there(&leader) || is_there(&child) {
        assert!(begun.elapsed() < SOON);
        sleep(Duration::from_millis(10)).await;
    }
    // The next one runs.
    let next = scripts.program("echo next > $1/next");
    runner.on_switch(next, to("b", "a", "ipv4"));
    scripts.wait_for("next", "next").await;
    runner.stop().await;
}

#[tokio::test]
async fn children_that_are_left_behind_are_ended() {
    // As in a container whose first process this is: orphans become its children.
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let scripts = Scripts::new();
    let mut runner = Runner::new();
    let script = "sleep 1000 & echo $! > $1/child
        setsid sh -c 'echo $$ > $0/daemon; exec sleep 1000' $1 &
        while ! test -s $1/daemon; do sleep 0.01; done; echo left > $1/ready";
    runner.on_switch(scripts.program(script), to("a", "", "ipv4"));
    scripts.wait_for("ready", "left").await;
    let next = scripts.program("echo next > $1/next");
    let begun = Instant::now();
    runner.on_switch(next, to("b", "a", "ipv4"));
    scripts.wait_for("next", "next").await;
    assert!(
        begun.elapsed() < run::GRACE,
        "a zombie was taken for a process that lives"
    );
    assert!(!is_there(&scripts.read("child")));
    // A process with a session of its own keeps running.
    let daemon = scripts.read("daemon");
    assert!(is_there(&daemon));
    let daemon = Pid::from_raw(daemon.trim().parse().unwrap());
    kill(daemon, nix::sys::signal::Signal::SIGKILL).unwrap();
    runner.stop().await;
}

#[tokio::test]
async fn a_stop_ends_what_runs_and_begins_nothing() {
    let scripts = Scripts::new();
    let mut runner = Runner::new();
    let script = "echo $$ > $1/leader; echo running > $1/ready; sleep 1000";
    runner.on_switch(scripts.program(script), to("a", "", "ipv4"));
    scripts.wait_for("ready", "running").await;
    runner.on_switch(scripts.program("echo next > $1/next"), to("b", "a", "ipv4"));
    runner.stop().await;
    assert!(!is_there(&scripts.read("leader")));
    sleep(WHILE).await;
    assert!(!scripts.path("next").exists());
}

#[tokio::test]
async fn a_stop_ends_what_is_on_its_way() {
    let scripts = Scripts::new();
    let mut runner = Runner::new();
    let script = "echo $$ > $1/leader; sleep 1000";
    runner.on_switch(scripts.program(script), to("a", "", "ipv4"));
    // Lets its task start, but not more.
    tokio::task::yield_now().await;
    runner.stop().await;
    sleep(WHILE).await;
    let leader = scripts.read("leader");
    assert!(leader.is_empty() || !is_there(&leader));
}

#[tokio::test]
async fn what_is_no_program_is_reported_beforehand_and_harms_nothing() {
    let scripts = Scripts::new();
    let program = |path: &Path| Program {
        command: vec![path.to_str().unwrap().to_owned()],
        ..scripts.program("")
    };
    let file = scripts.path("script");
    fs::write(&file, "#!/bin/sh\necho ran > \"$(dirname \"$0\")/ran\"\n").unwrap();
    let problem = |path: &Path| program(path).problem();
    for (path, words) in [
        (scripts.path("missing"), "No such file"),
        (scripts.path(""), "not a file"),
        (file.clone(), "not executable"),
    ] {
        let problem = problem(&path).unwrap();
        assert!(problem.starts_with("hooks.on_switch: /"), "{problem}");
        assert!(problem.contains(words), "{problem}");
    }
    let mut runner = Runner::new();
    runner.on_switch(program(&file), to("a", "", "ipv4"));
    runner.on_switch(program(&scripts.path("missing")), to("a", "", "ipv6"));
    let none = Program {
        command: Vec::new(),
        ..scripts.program("")
    };
    assert_eq!(none.problem(), None);
    runner.on_switch(none, to("a", "", "ipv6"));

    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(problem(&file), None);
    let begun = Instant::now();
    while !scripts.path("ran").exists() {
        assert!(begun.elapsed() < SOON, "it did not run");
        runner.on_switch(program(&file), to("b", "a", "ipv4"));
        sleep(Duration::from_millis(20)).await;
    }
    runner.stop().await;
}
