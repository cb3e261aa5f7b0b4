//! `docs/configuration.md` cannot drift from the code.

use super::*;
use crate::{
    control::{Response, status::Status},
    failure::EXIT_CODES,
};
use clap::CommandFactory as _;

const DOCUMENT: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../docs/configuration.md"
));

/// From the line after `heading` to the next heading of its level.
fn chapter(heading: &str) -> &'static str {
    let (_, rest) = DOCUMENT.split_once(&format!("\n{heading}\n")).unwrap();
    rest.split("\n## ").next().unwrap().trim()
}

#[test]
fn keys_and_defaults() {
    let text = chapter("## Keys");
    let (_, tables) = text.split_at(text.find("### `[probe]`").unwrap());
    let expected = reference();
    assert_eq!(
        tables,
        expected.trim(),
        "write this into the document:\n\n{expected}"
    );
}

#[test]
fn exit_codes() {
    let rows: Vec<String> = EXIT_CODES
        .iter()
        .map(|(code, meaning)| format!("| {code} | {meaning} |"))
        .collect();
    let found: Vec<&str> = chapter("## Exit codes")
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| code"))
        .collect();
    assert_eq!(found, rows);
}

#[test]
fn flags() {
    let text = chapter("## Flags");
    let command = Cli::command();
    let run = command.find_subcommand("run").unwrap();
    for flag in run.get_arguments().chain(command.get_arguments()) {
        if let Some(long) = flag.get_long() {
            assert!(
                text.contains(&format!("| `--{long}")),
                "--{long} is missing"
            );
        }
    }
}

#[test]
fn example_file() {
    let example = chapter("## The file").split("```toml\n").nth(1).unwrap();
    from_text(example.split("```").next().unwrap()).unwrap();
}

#[test]
fn status_example() {
    let example = chapter("## Status").split("```json\n").nth(1).unwrap();
    let example = example.split("```").next().unwrap();
    let status: Status = serde_json::from_str(example).unwrap();
    let written: serde_json::Value = serde_json::from_str(example).unwrap();
    assert_eq!(
        serde_json::to_value(&status).unwrap(),
        written,
        "a key is missing"
    );
    assert_eq!(status.version, crate::control::status::VERSION);
}

#[test]
fn event_example() {
    let example = chapter("## Commands").split("```json\n").nth(1).unwrap();
    let example = example.split("```").next().unwrap();
    let event: Response = serde_json::from_str(example).unwrap();
    let written: serde_json::Value = serde_json::from_str(example).unwrap();
    assert_eq!(serde_json::to_value(&event).unwrap(), written);
}

#[test]
fn every_status_and_event_key_is_explained() {
    every_key_is_explained("## Status");
    every_key_is_explained("## Commands");
}

fn every_key_is_explained(heading: &str) {
    let text = chapter(heading);
    let example = text.split("```json\n").nth(1).unwrap();
    let (example, explained) = example.split_once("```").unwrap();
    let mut names = Vec::new();
    collect_names(&serde_json::from_str(example).unwrap(), &mut names);
    for name in names {
        assert!(
            explained.contains(&format!("`{name}`")),
            "{name} is not explained"
        );
    }
}

fn collect_names(value: &serde_json::Value, names: &mut Vec<String>) {
    if let Some(object) = value.as_object() {
        names.extend(object.keys().cloned());
        object
            .values()
            .for_each(|value| collect_names(value, names));
    }
    if let Some(array) = value.as_array() {
        array.iter().for_each(|value| collect_names(value, names));
    }
}
