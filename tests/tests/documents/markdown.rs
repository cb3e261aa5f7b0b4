//! Sections of a document and their fenced blocks.

use anyhow::{Context, Result, bail};

/// From one `##` heading to the next.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) title: String,
    pub(crate) blocks: Vec<Block>,
}

impl Section {
    /// Its configuration files.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        let blocks = self.blocks.iter();
        blocks.filter_map(|block| (block.kind == "toml").then_some(block.text.as_str()))
    }

    /// Whether one of its commands starts the agent.
    pub(crate) fn starts_agent(&self) -> bool {
        let blocks = self.blocks.iter().filter(|block| block.kind == "console");
        blocks
            .filter_map(|block| block.commands().ok())
            .flatten()
            .any(|command| command.starts_agent())
    }
}

/// What stands between two fences.
#[derive(Debug)]
pub(crate) struct Block {
    /// The word behind the first fence.
    pub(crate) kind: String,
    pub(crate) text: String,
    /// Where it begins in the document, from 1.
    pub(crate) line: usize,
}

impl Block {
    /// The commands of a console, without those of a checkout.
    pub(crate) fn commands(&self) -> Result<Vec<Command>> {
        let commands = self.text.lines().map(Command::parse);
        let of_a_checkout = |command: &Command| command.line.starts_with("cargo xtask ");
        commands
            .filter(|command| !command.as_ref().is_ok_and(of_a_checkout))
            .collect()
    }

    /// Where a script belongs: the comment on its second line begins with the path.
    pub(crate) fn path(&self) -> Option<&str> {
        let comment = self.text.lines().nth(1)?.strip_prefix("# ")?;
        let path = comment.split(':').next()?;
        path.starts_with('/').then_some(path)
    }
}

/// A line to be typed.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) line: String,
    /// How it is to end.
    pub(crate) code: i32,
}

impl Command {
    fn parse(line: &str) -> Result<Command> {
        let typed = line.strip_prefix("$ ").or_else(|| line.strip_prefix("# "));
        let line = typed.with_context(|| format!("not a command: {line}"))?;
        let code = match line.split_once("# exit code ") {
            None => 0,
            Some((_, comment)) => {
                let digits = comment.split(|c: char| !c.is_ascii_digit()).next();
                digits.unwrap_or_default().parse()?
            }
        };
        Ok(Command {
            line: line.to_owned(),
            code,
        })
    }

    /// The verb, if it is one of the agent's.
    pub(crate) fn verb(&self) -> Option<&str> {
        let mut words = self.line.split_whitespace();
        (words.next() == Some("failover-agent"))
            .then(|| words.next())
            .flatten()
    }

    pub(crate) fn starts_agent(&self) -> bool {
        self.verb() == Some("run")
    }
}

pub(crate) fn sections(document: &str) -> Result<Vec<Section>> {
    let mut sections = vec![Section {
        title: "the beginning".to_owned(),
        blocks: Vec::new(),
    }];
    let mut open: Option<Block> = None;
    for (line, text) in (1..).zip(document.lines()) {
        match (text.strip_prefix("```"), &mut open) {
            (Some(""), Some(_)) => {
                let section = sections.last_mut().context("no section")?;
                section.blocks.extend(open.take());
            }
            (Some(kind), None) => {
                open = Some(Block {
                    kind: kind.to_owned(),
                    text: String::new(),
                    line,
                });
            }
            (Some(_), Some(_)) => bail!("line {line}: a fence within a block"),
            (None, Some(block)) => {
                block.text.push_str(text);
                block.text.push('\n');
            }
            (None, None) => {
                if let Some(title) = text.strip_prefix("## ") {
                    sections.push(Section {
                        title: title.to_owned(),
                        blocks: Vec::new(),
                    });
                }
            }
        }
    }
    if let Some(block) = open {
        bail!("the block of line {} has no end", block.line);
    }
    Ok(sections)
}
