//! What `--help` and the documents show to be typed is understood, and no verb is left out of the README.

use anyhow::Result;
use clap::{CommandFactory, Parser, error::ErrorKind};
use failover_agent::cli::Cli;
use failover_lab::Scenario;

use super::{ARCHITECTURE, CONFIGURATION, MIGRATING, OPERATIONS, README};

const PROGRAM: &str = "failover-agent ";

/// Each verb with its help.
fn help() -> Vec<(String, String)> {
    let mut cli = Cli::command();
    cli.build();
    let verbs = cli
        .get_subcommands_mut()
        .filter(|verb| verb.get_name() != "help");
    verbs
        .map(|verb| {
            (
                verb.get_name().to_owned(),
                verb.render_long_help().to_string(),
            )
        })
        .collect()
}

/// The command lines of an example: without what is piped, remarked or typed after them.
fn lines(text: &str) -> Vec<String> {
    let text = text.replace("\\\n", " ");
    let starts = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix(PROGRAM));
    starts
        .flat_map(|rest| rest.split("&& failover-agent "))
        .map(|line| {
            line.split([';', '|', '(', '#'])
                .next()
                .unwrap_or_default()
                .to_owned()
        })
        .collect()
}

fn ensure_understood(line: &str) -> Result<()> {
    let words = PROGRAM.split_whitespace().chain(line.split_whitespace());
    match Cli::try_parse_from(words) {
        Ok(_) => Ok(()),
        // The verb alone, as a name.
        Err(error) if error.kind() == ErrorKind::MissingRequiredArgument && !line.contains(' ') => {
            Ok(())
        }
        Err(error) => anyhow::bail!("{PROGRAM}{line}: {error}"),
    }
}

#[test]
fn examples_of_every_verb_are_understood() -> Scenario {
    let help = help();
    assert!(help.len() >= 10, "{help:?}");
    for (verb, text) in help {
        let (_, examples) = text.split_once("Examples:\n").unwrap_or_default();
        let lines = lines(examples);
        assert!(!lines.is_empty(), "{verb} has no examples: {text}");
        for line in lines {
            ensure_understood(&line)?;
        }
    }
    Ok(())
}

#[test]
fn commands_in_the_running_text_are_understood() -> Scenario {
    for document in [README, ARCHITECTURE, CONFIGURATION, OPERATIONS, MIGRATING] {
        for quoted in document
            .split('`')
            .filter_map(|text| text.strip_prefix(PROGRAM))
        {
            // `[--json]` stands for with and without; fenced blocks are followed by other tests.
            if !quoted.contains('\n') {
                ensure_understood(&quoted.replace(['[', ']'], ""))?;
            }
        }
    }
    Ok(())
}

#[test]
fn the_readme_has_every_verb() -> Scenario {
    for (verb, _) in help() {
        let row = |line: &str| line.starts_with(&format!("| `{verb}")) && line.contains(" | ");
        assert!(README.lines().any(row), "no row for {verb}");
    }
    Ok(())
}
