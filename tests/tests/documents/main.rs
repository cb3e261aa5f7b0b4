//! What the documents say works: their configuration files pass `check`, their commands run, their scripts parse.
//!
//! Every fenced block of `README.md` and of the documents for users in `docs/` is of one of these kinds; any other fails the test.
//!
//! | kind | what is done with it |
//! |---|---|
//! | `toml` | it is `/etc/failover-agent.toml` from there on, and must pass `failover-agent check` |
//! | `console` | its lines, with `$` or `#` in front, are run one after the other, as root, and must succeed, or end as a comment behind them says: `# exit code 21`. `failover-agent run` goes on until the end of the section. What begins with `cargo xtask` is left out: it builds and tests all of this |
//! | `sh` | must parse. A path in the comment on its second line is where it is written to; what the agent runs of it must succeed |
//! | `ini`, `json` | must parse |
//! | `text` | nothing: other systems' settings, log lines, pictures |
//!
//! Each section has a host of its own with the uplinks that its files name, or the first file of the document where it has none.
//! The agent runs before the first command, unless a command of the section starts it.

mod claims;
mod help;
mod host;
mod markdown;

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};
use failover_lab::Scenario;

use self::{
    host::Host,
    markdown::{Block, Section, sections},
};

const README: &str = include_str!("../../../README.md");
const ARCHITECTURE: &str = include_str!("../../../docs/architecture.md");
const CONFIGURATION: &str = include_str!("../../../docs/configuration.md");
const OPERATIONS: &str = include_str!("../../../docs/operations.md");
const MIGRATING: &str = include_str!("../../../docs/migrating.md");

#[test]
#[ignore = "needs root"]
fn readme_can_be_followed() -> Scenario {
    follow(README)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn configuration_can_be_followed() -> Scenario {
    follow(CONFIGURATION)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn operations_can_be_followed() -> Scenario {
    follow(OPERATIONS)?;
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn migrating_can_be_followed() -> Scenario {
    follow(MIGRATING)?;
    Ok(())
}

fn follow(document: &str) -> Result<()> {
    let sections = sections(document)?;
    let mut files = sections.iter().flat_map(Section::files);
    let first = files.next().context("no configuration file")?;
    for section in &sections {
        follow_section(section, first).with_context(|| format!("section `{}`", section.title))?;
    }
    Ok(())
}

fn follow_section(section: &Section, first: &str) -> Result<()> {
    let needs_host = |block: &Block| matches!(block.kind.as_str(), "toml" | "console");
    let mut host = match section.blocks.iter().any(needs_host) {
        true => Some(Host::build(section, first)?),
        false => None,
    };
    for block in &section.blocks {
        follow_block(block, host.as_mut()).with_context(|| format!("line {}", block.line))?;
    }
    host.map_or(Ok(()), Host::end)
}

fn follow_block(block: &Block, host: Option<&mut Host>) -> Result<()> {
    let text = &block.text;
    match (block.kind.as_str(), host) {
        ("toml", Some(host)) => host.configure(text),
        ("console", Some(host)) => {
            for command in block.commands()? {
                host.run(&command).with_context(|| command.line.clone())?;
            }
            Ok(())
        }
        ("sh", host) => {
            let check = Command::new("sh").args(["-n", "-c", text]).output()?;
            ensure!(check.status.success(), "{check:?}");
            match (host, block.path()) {
                (Some(host), Some(path)) => host.write_script(Path::new(path), text),
                _ => Ok(()),
            }
        }
        ("ini", _) => parse_ini(text),
        ("json", _) => {
            let _: serde_json::Value = serde_json::from_str(text)?;
            Ok(())
        }
        ("text", _) => Ok(()),
        (kind, _) => bail!("a block of kind `{kind}`: nobody knows what to do with it"),
    }
}

fn parse_ini(text: &str) -> Result<()> {
    let mut in_section = false;
    for line in text.lines().filter(|line| !line.is_empty()) {
        let header = line.starts_with('[') && line.ends_with(']');
        in_section |= header;
        let setting = line.split_once('=').is_some_and(|(key, _)| {
            let plain = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
            !key.is_empty() && key.chars().all(plain)
        });
        ensure!(in_section && (header || setting), "not a setting: {line}");
    }
    Ok(())
}

#[test]
fn links_lead_somewhere() -> Scenario {
    let documents = [
        ("", README),
        ("docs", ARCHITECTURE),
        ("docs", CONFIGURATION),
        ("docs", OPERATIONS),
        ("docs", MIGRATING),
    ];
    for (dir, document) in documents {
        for (_, rest) in document
            .match_indices("](")
            .map(|(at, _)| document.split_at(at + 2))
        {
            let (target, _) = rest.split_once(')').context("a link without end")?;
            if let Some(anchor) = target.strip_prefix('#') {
                assert!(
                    document.lines().any(|line| leads_to(line, anchor)),
                    "no {target}"
                );
                continue;
            }
            let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(dir);
            assert!(dir.join(target).is_file(), "no {target}");
        }
    }
    Ok(())
}

/// Whether a line is the heading with this anchor.
fn leads_to(line: &str, anchor: &str) -> bool {
    let heading = line.trim_start_matches('#');
    let words = heading.trim().to_lowercase().replace(' ', "-");
    heading.len() < line.len() && words == anchor
}
