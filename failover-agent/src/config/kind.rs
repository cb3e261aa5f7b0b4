//! The kinds of values: unit, range, and how to read them.

use std::{path::PathBuf, time::Duration};

use super::raw::{Raw, invalid};
use crate::failure::Failure;

/// A kind of value.
pub(super) trait Kind {
    /// What a value is read into.
    type Value;

    /// What a value is, with its unit (a column of the documentation).
    fn unit(&self) -> String;

    /// Which values are allowed (a column of the documentation).
    fn range(&self) -> String;

    /// Reads the value of `key`.
    ///
    /// # Errors
    ///
    /// Wrong type, or out of range.
    fn read(&self, key: &str, raw: Raw<'_>) -> Result<Self::Value, Failure>;
}

/// A duration with its unit: `"100ms"`, `"1s"`, `"1m 30s"`.
#[derive(Debug)]
pub(super) struct Span {
    /// Smallest allowed value.
    pub(super) min: Duration,
    /// Greatest allowed value.
    pub(super) max: Duration,
}

impl Kind for Span {
    type Value = Duration;

    fn unit(&self) -> String {
        "duration".to_owned()
    }

    fn range(&self) -> String {
        format!(
            "{} to {}",
            humantime::format_duration(self.min),
            humantime::format_duration(self.max)
        )
    }

    fn read(&self, key: &str, raw: Raw<'_>) -> Result<Duration, Failure> {
        let text = raw.text(key, "a duration", "\"1s\"")?;
        let value = humantime::parse_duration(text).map_err(|error| {
            invalid(
                raw.place(),
                format!("`{key}` = \"{text}\" is not a duration ({error})"),
                "write a number and a unit, such as 100ms, 1s or 2m",
            )
        })?;
        if value < self.min || value > self.max {
            return Err(out_of_range(key, text, self, raw));
        }
        Ok(value)
    }
}

/// A whole number.
#[derive(Debug)]
pub(super) struct Number {
    /// What it counts.
    pub(super) unit: &'static str,
    /// Smallest allowed value.
    pub(super) min: u32,
    /// Greatest allowed value.
    pub(super) max: u32,
}

impl Kind for Number {
    type Value = u32;

    fn unit(&self) -> String {
        self.unit.to_owned()
    }

    fn range(&self) -> String {
        format!("{} to {}", self.min, self.max)
    }

    fn read(&self, key: &str, raw: Raw<'_>) -> Result<u32, Failure> {
        let number = raw.integer(key, &self.min.to_string())?;
        u32::try_from(number)
            .ok()
            .filter(|number| (self.min..=self.max).contains(number))
            .ok_or_else(|| out_of_range(key, &number.to_string(), self, raw))
    }
}

/// A route protocol number that no other program uses: `reset` and `stop` remove routes by it.
#[derive(Debug)]
pub(super) struct Protocol;

/// Numbers that the kernel (`include/uapi/linux/rtnetlink.h`, `RTPROT_*`), iproute2's `rt_protos` or FRR (`zebra/rt_netlink.h`) assign to
/// other programs.
const FOREIGN_PROTOCOLS: [(u8, &str); 25] = [
    (0, "unspec"),
    (1, "redirect"),
    (2, "kernel"),
    (3, "boot"),
    (4, "static"),
    (8, "gated"),
    (9, "ra"),
    (10, "mrt"),
    (11, "zebra"),
    (12, "bird"),
    (13, "dnrouted"),
    (14, "xorp"),
    (15, "ntk"),
    (16, "dhcp"),
    (17, "mrouted"),
    (18, "keepalived"),
    (42, "babel"),
    (84, "ovn"),
    (99, "openr"),
    (186, "bgp"),
    (187, "isis"),
    (188, "ospf"),
    (189, "rip"),
    (192, "eigrp"),
    (196, "FRR static"),
];

impl Kind for Protocol {
    type Value = u8;

    fn unit(&self) -> String {
        "route protocol number".to_owned()
    }

    fn range(&self) -> String {
        "5 to 255, and no other program's (`/etc/iproute2/rt_protos`)".to_owned()
    }

    fn read(&self, key: &str, raw: Raw<'_>) -> Result<u8, Failure> {
        let number = raw.integer(key, "136")?;
        let number =
            u8::try_from(number).map_err(|_| out_of_range(key, &number.to_string(), self, raw))?;
        match FOREIGN_PROTOCOLS.iter().find(|(taken, _)| *taken == number) {
            Some((_, owner)) => Err(invalid(
                raw.place(),
                format!(
                    "`{key}` = {number} belongs to `{owner}`, whose routes the agent would remove"
                ),
                "choose a number that no other program uses, such as 136",
            )),
            None => Ok(number),
        }
    }
}

/// One of a few words.
#[derive(Debug)]
pub(super) struct Word<T: 'static> {
    /// The words and what they mean.
    pub(super) words: &'static [(&'static str, T)],
}

impl<T: Copy> Kind for Word<T> {
    type Value = T;

    fn unit(&self) -> String {
        "word".to_owned()
    }

    fn range(&self) -> String {
        let words: Vec<String> = self
            .words
            .iter()
            .map(|(word, _)| format!("`\"{word}\"`"))
            .collect();
        words.join(", ")
    }

    fn read(&self, key: &str, raw: Raw<'_>) -> Result<T, Failure> {
        let words: Vec<&str> = self.words.iter().map(|(word, _)| *word).collect();
        let text = raw.text(key, "a word", &format!("\"{}\"", words[0]))?;
        if let Some((_, value)) = self.words.iter().find(|(word, _)| *word == text) {
            return Ok(*value);
        }
        Err(invalid(
            raw.place(),
            format!("`{key}` = \"{text}\" is unknown"),
            format!("choose one of: {}", words.join(", ")),
        ))
    }
}

/// An optional value, whose default depends on other values.
#[derive(Debug)]
pub(super) struct Optional<K>(pub(super) K);

impl<K: Kind> Kind for Optional<K> {
    type Value = Option<K::Value>;

    fn unit(&self) -> String {
        self.0.unit()
    }

    fn range(&self) -> String {
        self.0.range()
    }

    fn read(&self, key: &str, raw: Raw<'_>) -> Result<Self::Value, Failure> {
        self.0.read(key, raw).map(Some)
    }
}

/// A program by its absolute path, and its arguments; an empty list means no program.
#[derive(Debug)]
pub(super) struct Command;

impl Kind for Command {
    type Value = Vec<String>;

    fn unit(&self) -> String {
        "list of strings".to_owned()
    }

    fn range(&self) -> String {
        "an absolute path, then arguments".to_owned()
    }

    fn read(&self, key: &str, raw: Raw<'_>) -> Result<Vec<String>, Failure> {
        const EXAMPLE: &str = "[\"/usr/local/bin/hook\", \"argument\"]";
        let words = raw.list(key, "a list: a program and its arguments", EXAMPLE)?;
        let mut command = Vec::new();
        for word in words {
            let text = word.text(key, "a list of strings", EXAMPLE)?;
            if text.contains('\0') {
                return Err(invalid(
                    word.place(),
                    format!("`{key}` has a NUL character in it"),
                    "leave it out",
                ));
            }
            command.push(text.to_owned());
        }
        match command.first() {
            Some(program) if !program.starts_with('/') => Err(invalid(
                raw.place(),
                format!("`{key}` runs `{program}`, which is not an absolute path"),
                format!("no shell and no search path is used: write for example {key} = {EXAMPLE}"),
            )),
            _ => Ok(command),
        }
    }
}

/// `true` or `false`.
#[derive(Debug)]
pub(super) struct YesNo;

impl Kind for YesNo {
    type Value = bool;

    fn unit(&self) -> String {
        "boolean".to_owned()
    }

    fn range(&self) -> String {
        "`true`, `false`".to_owned()
    }

    fn read(&self, key: &str, raw: Raw<'_>) -> Result<bool, Failure> {
        raw.boolean(key, "true")
    }
}

/// The name of a network interface.
#[derive(Debug)]
pub(super) struct Interface;

impl Kind for Interface {
    type Value = String;

    fn unit(&self) -> String {
        "interface name".to_owned()
    }

    fn range(&self) -> String {
        "1 to 127 bytes without commas".to_owned()
    }

    /// The kernel's own conditions (`dev_valid_name()` in `net/core/dev.c`), and no control characters. A name longer than 15 bytes can only
    /// be an altname: the error comes when the interface is looked up, with the name to write instead.
    fn read(&self, key: &str, raw: Raw<'_>) -> Result<String, Failure> {
        let text = raw.text(key, "an interface name", "\"eth0\"")?;
        let valid = (1..=127).contains(&text.len())
            && text != "."
            && text != ".."
            && !text
                .contains(|c: char| matches!(c, '/' | ':') || c.is_whitespace() || c.is_control());
        if !valid {
            return Err(invalid(
                raw.place(),
                format!("`{text}` cannot be the name of an interface"),
                "write one of the names that `ip link` shows",
            ));
        }
        if text.contains(',') {
            return Err(invalid(
                raw.place(),
                format!(
                    "`{text}` has a comma, which separates interfaces in the variables of hooks"
                ),
                format!("rename it (ip link set dev {text} name NAME)"),
            ));
        }
        if text == "lo" {
            return Err(invalid(
                raw.place(),
                "`lo` leads nowhere but to this host",
                "name an interface that leads to the internet",
            ));
        }
        Ok(text.to_owned())
    }
}

/// `switch auto` gives the choice back to the agent: an uplink of that name could not be chosen.
pub(super) const AUTO: &str = "auto";

/// The name of an uplink.
#[derive(Debug)]
pub(super) struct Name;

impl Kind for Name {
    type Value = Option<String>;

    fn unit(&self) -> String {
        "text".to_owned()
    }

    fn range(&self) -> String {
        "1 to 32 characters without blanks, unique, not `auto`".to_owned()
    }

    fn read(&self, key: &str, raw: Raw<'_>) -> Result<Self::Value, Failure> {
        let text = raw.text(key, "a name", "\"cable\"")?;
        let printable = |c: char| !c.is_whitespace() && !c.is_control() && c != ',';
        let length = text.chars().count();
        if !(1..=32).contains(&length) || !text.chars().all(printable) || text == AUTO {
            return Err(invalid(
                raw.place(),
                format!("`{text}` cannot be the name of an uplink"),
                "write 1 to 32 characters without blanks and commas, other than auto",
            ));
        }
        Ok(Some(text.to_owned()))
    }
}

/// An absolute path of a directory.
#[derive(Debug)]
pub(super) struct Directory;

impl Kind for Directory {
    type Value = PathBuf;

    fn unit(&self) -> String {
        "path".to_owned()
    }

    fn range(&self) -> String {
        "absolute, up to 90 bytes".to_owned()
    }

    fn read(&self, key: &str, raw: Raw<'_>) -> Result<PathBuf, Failure> {
        let path = PathBuf::from(raw.text(key, "a path", "\"/run/failover-agent\"")?);
        // A control socket's path has room for 107 bytes (`sun_path`, unix(7)).
        let fits = path.as_os_str().len() <= 90;
        // Only the root has no parent; `reset` must never take it for a directory of ours.
        if !path.is_absolute() || path.parent().is_none() || !fits {
            return Err(invalid(
                raw.place(),
                format!(
                    "`{key}` = \"{}\" is not the absolute path of a directory below /, of up to 90 bytes",
                    path.display()
                ),
                "write for example /run/failover-agent",
            ));
        }
        Ok(path)
    }
}

pub(super) fn out_of_range(key: &str, text: &str, kind: &impl Kind, raw: Raw<'_>) -> Failure {
    let range = kind.range();
    invalid(
        raw.place(),
        format!("`{key}` = {text} is out of range"),
        format!("choose a value in the range {range}"),
    )
}
