//! What building and testing need, and what of it is on this machine.

use std::path::PathBuf;

use anyhow::Result;

use crate::{
    daemons::{self, DAEMONS},
    linker::{self, Linker},
    packages,
    programs::{self, Tool, find_program},
    toolchain::{CHECKERS, Component, RUST_SRC, Toolchain},
};

/// How much is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// What `cargo build` needs.
    Build,
    /// That, and what the laboratory needs: the demonstration and the benchmark.
    Laboratory,
    /// That, and what only the tests need.
    Everything,
}

/// What was found on this machine.
pub(crate) struct Machine {
    scope: Scope,
    toolchain: Toolchain,
    linker: Option<Linker>,
    llvm: Option<PathBuf>,
    tools: Vec<(Tool, Option<PathBuf>)>,
    daemons: Vec<(Tool, Option<PathBuf>)>,
}

impl Machine {
    pub(crate) fn survey(scope: Scope) -> Result<Self> {
        let toolchain = Toolchain::in_use()?;
        Ok(Self {
            scope,
            linker: linker::in_use(),
            llvm: linker::llvm_prefix(toolchain.llvm),
            tools: programs::laboratory()
                .map(|tool| (tool, find_program(tool.program)))
                .collect(),
            daemons: DAEMONS
                .into_iter()
                .map(|daemon| (daemon, daemons::find(daemon)))
                .collect(),
            toolchain,
        })
    }

    fn components(&self) -> Vec<Component> {
        let checkers = match self.scope {
            Scope::Build => &[][..],
            Scope::Laboratory | Scope::Everything => &CHECKERS,
        };
        [RUST_SRC].iter().chain(checkers).copied().collect()
    }

    fn linker_fits(&self) -> bool {
        self.linker
            .as_ref()
            .is_some_and(|linker| linker.fits(self.toolchain.llvm))
    }

    /// What is missing within the scope.
    pub(crate) fn missing(&self) -> Missing {
        let components = self.components().into_iter();
        let tools = self.tools.iter().filter(|(_, path)| path.is_none());
        Missing {
            components: components
                .filter(|&component| !self.toolchain.has(component))
                .collect(),
            linker: !self.linker_fits(),
            llvm_files: self.llvm.is_none(),
            tools: match self.scope {
                Scope::Build => Vec::new(),
                Scope::Laboratory | Scope::Everything => tools.map(|(tool, _)| *tool).collect(),
            },
            daemons: self.scope == Scope::Everything
                && self.daemons.iter().any(|(_, path)| path.is_none()),
            llvm: self.toolchain.llvm,
        }
    }

    /// The report, and how many things are missing.
    pub(crate) fn report(&self) -> (String, usize) {
        let rows = self.rows();
        let missing = rows
            .iter()
            .filter(|row| row.state == State::Missing)
            .count();
        (table(&rows), missing)
    }

    fn rows(&self) -> Vec<Row> {
        let llvm = self.toolchain.llvm;
        let mut rows = vec![Row {
            thing: "rustc".into(),
            found: format!("{}, LLVM {llvm}", self.toolchain.release),
            needed: "1.95 or newer".into(),
            // cargo would not have built us with an older one.
            state: State::Ok,
            how: String::new(),
        }];
        for component in self.components() {
            let there = self.toolchain.has(component);
            rows.push(Row {
                thing: component.name.into(),
                found: if there { "in the toolchain" } else { "-" }.into(),
                needed: "in the toolchain".into(),
                state: State::of(there),
                how: format!("rustup component add {}", component.name),
            });
        }
        let linker_fits = self.linker_fits();
        rows.push(Row {
            thing: "bpf-linker".into(),
            found: self
                .linker
                .as_ref()
                .map_or_else(String::new, Linker::describe),
            needed: format!("LLVM {llvm} or newer"),
            state: State::of(linker_fits),
            how: format!(
                "cargo install, version {}, into target/tools",
                linker::VERSION
            ),
        });
        rows.push(Row {
            thing: format!("LLVM {llvm} library"),
            found: self
                .llvm
                .as_ref()
                .map_or_else(String::new, |prefix| prefix.display().to_string()),
            needed: "to build bpf-linker".into(),
            state: match (&self.llvm, linker_fits) {
                (None, true) => State::NotNeeded,
                (llvm, _) => State::of(llvm.is_some()),
            },
            how: from_package(&packages::llvm_package(llvm)),
        });
        for tools in self.tools.chunk_by(|(a, _), (b, _)| a.package == b.package) {
            let package = tools[0].0.package;
            let lacking: Vec<_> = tools
                .iter()
                .filter(|(_, path)| path.is_none())
                .map(|(tool, _)| tool.program)
                .collect();
            rows.push(Row {
                thing: package.into(),
                found: if lacking.is_empty() {
                    let programs: Vec<_> = tools.iter().map(|(tool, _)| tool.program).collect();
                    programs.join(" ")
                } else {
                    format!("no {}", lacking.join(" "))
                },
                needed: "by the tests".into(),
                state: State::of(lacking.is_empty()),
                how: from_package(package),
            });
        }
        rows.extend(self.daemons.iter().map(|(daemon, path)| {
            Row {
                thing: daemon.program.rsplit('/').next().unwrap_or_default().into(),
                found: path
                    .as_ref()
                    .map_or_else(String::new, |path| daemons::describe(path)),
                needed: "by the tests".into(),
                state: State::of(path.is_some()),
                how: format!("package {}, unpacked below target/tools", daemon.package),
            }
        }));
        rows
    }
}

/// What is missing on a machine.
pub(crate) struct Missing {
    pub(crate) components: Vec<Component>,
    /// There is no bpf-linker that fits.
    pub(crate) linker: bool,
    /// There are no files for linking with LLVM.
    pub(crate) llvm_files: bool,
    pub(crate) tools: Vec<Tool>,
    /// Not all daemons are there.
    pub(crate) daemons: bool,
    /// rustc's LLVM major.
    pub(crate) llvm: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ok,
    Missing,
    NotNeeded,
}

impl State {
    fn of(there: bool) -> Self {
        if there { Self::Ok } else { Self::Missing }
    }
}

/// One line of the report.
struct Row {
    thing: String,
    found: String,
    needed: String,
    state: State,
    /// How it would be got, told where it is missing.
    how: String,
}

/// How a package would be got here.
fn from_package(package: &str) -> String {
    if find_program("apt-get").is_some() {
        format!("apt-get install {package}")
    } else {
        format!("by hand, no apt-get here (Debian's package: {package})")
    }
}

fn table(rows: &[Row]) -> String {
    let cells = |row: &Row| {
        let found = if row.found.is_empty() {
            "-"
        } else {
            &row.found
        };
        let state = match row.state {
            State::Ok => "ok".to_owned(),
            State::NotNeeded => "not needed".to_owned(),
            State::Missing => format!("MISSING: {}", row.how),
        };
        [
            row.thing.clone(),
            found.to_owned(),
            row.needed.clone(),
            state,
        ]
    };
    let head = ["THING", "FOUND", "NEEDED", "STATE"].map(str::to_owned);
    let lines: Vec<_> = std::iter::once(head)
        .chain(rows.iter().map(cells))
        .collect();
    let width = |column: usize| {
        lines
            .iter()
            .map(|line| line[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let (a, b, c) = (width(0), width(1), width(2));
    lines
        .iter()
        .map(|[thing, found, needed, state]| {
            format!("{thing:a$}  {found:b$}  {needed:c$}  {state}\n")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_tells_how_a_missing_thing_would_be_got() {
        let row = |state, found: &str| Row {
            thing: "tcpdump".into(),
            found: found.into(),
            needed: "by the tests".into(),
            state,
            how: "apt-get install tcpdump".into(),
        };
        let text = table(&[row(State::Missing, ""), row(State::Ok, "/usr/bin/tcpdump")]);
        let lines: Vec<_> = text.lines().collect();
        assert!(
            lines[1].contains("-  ") && lines[1].ends_with("MISSING: apt-get install tcpdump"),
            "{text}"
        );
        assert!(lines[2].ends_with("by the tests  ok"), "{text}");
    }
}
