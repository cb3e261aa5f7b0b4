//! What was done to the kernel's routing, as a value: the log prints it, and whoever looks for the cause of a repair compares it.

use std::fmt;

/// What was done, and to what. Prints as `added default via 192.0.2.1 dev eth0 …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// What was done.
    pub verb: Verb,
    /// To what.
    pub object: Object,
}

/// What can be done to a part of the routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// It was not there.
    Added,
    /// It was ours.
    Removed,
    /// It was another program's, and is on record.
    Displaced,
    /// It was displaced.
    Restored,
    /// It has another value.
    Set,
}

/// A part of the routing, as `ip` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A route.
    Route(String),
    /// A rule.
    Rule(String),
    /// A nexthop object.
    Nexthop(String),
    /// A sysctl setting, and from what to what.
    Setting(String),
    /// A record in a file.
    Record(&'static str),
}

impl Done {
    pub(crate) fn added(object: Object) -> Done {
        let verb = Verb::Added;
        Done { verb, object }
    }

    pub(crate) fn removed(object: Object) -> Done {
        let verb = Verb::Removed;
        Done { verb, object }
    }

    pub(crate) fn set(setting: String) -> Done {
        Done {
            verb: Verb::Set,
            object: Object::Setting(setting),
        }
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.verb {
            Verb::Added => "added",
            Verb::Removed => "removed",
            Verb::Displaced => "displaced",
            Verb::Restored => "restored",
            Verb::Set => "set",
        };
        write!(f, "{verb} {}", self.object)
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Object::Route(text) | Object::Rule(text) | Object::Nexthop(text) => f.write_str(text),
            Object::Setting(text) => f.write_str(text),
            Object::Record(what) => f.write_str(what),
        }
    }
}
