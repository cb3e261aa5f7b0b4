//! Architecture invariant: the machine knows no clock, no file, no socket, no kernel.

use std::fs;
use std::path::{Path, PathBuf};

/// Words that no file of the policy may contain.
const FORBIDDEN: [&str; 13] = [
    "tokio",
    "aya",
    "rtnetlink",
    "netlink",
    "nix::",
    "socket2",
    "std::time",
    "std::fs",
    "std::net",
    "std::io",
    "std::env",
    "Instant",
    "SystemTime",
];

/// Code without its comments, which may well say what the code must not do.
fn code(source: &str) -> String {
    source
        .lines()
        .filter_map(|line| line.split("//").next())
        .collect::<Vec<_>>()
        .join("\n")
}

fn forbidden(source: &str) -> Vec<&'static str> {
    let code = code(source);
    // `use std::{fs, time}` says the same in other words.
    let grouped = ["std::{", "std::process", "std::thread"];
    FORBIDDEN
        .into_iter()
        .chain(grouped)
        .filter(|word| code.contains(word))
        .collect()
}

#[test]
fn policy_is_pure() {
    let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let sources: Vec<PathBuf> = fs::read_dir(policy)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect();
    assert!(
        sources.iter().any(|path| path.ends_with("machine.rs")),
        "{sources:?}"
    );
    for path in sources {
        let found = forbidden(&fs::read_to_string(&path).unwrap());
        assert!(found.is_empty(), "{} mentions {found:?}", path.display());
    }
}

#[test]
fn impurity_is_found() {
    assert_eq!(
        forbidden("use std::time::Instant; // a clock"),
        ["std::time", "Instant"]
    );
    assert_eq!(forbidden("use std::{fs, io};"), ["std::{"]);
    assert!(forbidden("//! knows no tokio\nuse core::time::Duration;").is_empty());
}
