//! Values as they were written, in a file or on the command line, together with their place.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeInteger, DeValue},
};

use crate::failure::Failure;

/// A configuration file's name and text: turns byte offsets into places.
#[derive(Debug)]
pub(super) struct Source<'a> {
    /// As given with `--config`.
    pub(super) name: String,
    /// The whole file.
    pub(super) text: &'a str,
}

impl Source<'_> {
    /// `file:line:column` of the start of `span`; lines and columns count from 1, columns in characters.
    pub(super) fn place(&self, span: &Range<usize>) -> String {
        let before = &self.text[..self.text.floor_char_boundary(span.start)];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        format!("{}:{line}:{column}", self.name)
    }
}

/// A value that has not been interpreted yet.
#[derive(Clone, Copy, Debug)]
pub(super) enum Raw<'a> {
    /// From a file. TOML has types, which must match.
    Toml {
        /// The file.
        source: &'a Source<'a>,
        /// The value.
        value: &'a Spanned<DeValue<'a>>,
    },
    /// From the command line, where everything is text.
    Flag {
        /// The flag, as errors should name it.
        flag: &'a str,
        /// Its value.
        text: &'a str,
    },
}

impl<'a> Raw<'a> {
    /// Its place.
    pub(super) fn place(self) -> String {
        match self {
            Raw::Toml { source, value } => source.place(&value.span()),
            Raw::Flag { flag, .. } => flag.to_owned(),
        }
    }

    /// The text of a string.
    pub(super) fn text(self, key: &str, wanted: &str, example: &str) -> Result<&'a str, Failure> {
        match self {
            Raw::Toml { value, .. } => value.get_ref().as_str(),
            Raw::Flag { text, .. } => Some(text),
        }
        .ok_or_else(|| self.wrong_type(key, wanted, example))
    }

    /// The value of an integer.
    pub(super) fn integer(self, key: &str, example: &str) -> Result<i128, Failure> {
        match self {
            Raw::Toml { value, .. } => value.get_ref().as_integer().and_then(integer_value),
            Raw::Flag { text, .. } => text.parse().ok(),
        }
        .ok_or_else(|| self.wrong_type(key, "a whole number", example))
    }

    /// The value of a boolean.
    pub(super) fn boolean(self, key: &str, example: &str) -> Result<bool, Failure> {
        match self {
            Raw::Toml { value, .. } => value.get_ref().as_bool(),
            Raw::Flag { text, .. } => text.parse().ok(),
        }
        .ok_or_else(|| self.wrong_type(key, "true or false", example))
    }

    /// The elements of a list. On the command line, each flag is an element.
    pub(super) fn list(
        self,
        key: &str,
        wanted: &str,
        example: &str,
    ) -> Result<Vec<Raw<'a>>, Failure> {
        match self {
            Raw::Toml { source, value } => value
                .get_ref()
                .as_array()
                .map(|array| {
                    array
                        .iter()
                        .map(|value| Raw::Toml { source, value })
                        .collect()
                })
                .ok_or_else(|| self.wrong_type(key, wanted, example)),
            Raw::Flag { .. } => Ok(vec![self]),
        }
    }

    fn wrong_type(self, key: &str, wanted: &str, example: &str) -> Failure {
        let (found, cure) = match self {
            Raw::Toml { value, .. } => (
                with_article(value.get_ref().type_str()),
                format!("write for example {key} = {example}"),
            ),
            Raw::Flag { text, .. } => (
                format!("`{text}`"),
                format!("write for example {}", example.trim_matches('"')),
            ),
        };
        invalid(
            self.place(),
            format!("`{key}` must be {wanted}, not {found}"),
            cure,
        )
    }
}

/// A value and where it was written; without a place, it is the default. Kept for errors that only appear when several values are compared.
#[derive(Clone, Debug)]
pub(super) struct Placed<T> {
    /// The value.
    pub(super) value: T,
    /// `file:line:column` or the flag.
    pub(super) place: Option<String>,
}

impl<T> Placed<T> {
    /// A default, which has no place.
    pub(super) fn default_value(value: T) -> Self {
        Placed { value, place: None }
    }

    /// A value written at `place`.
    pub(super) fn at(place: String, value: T) -> Self {
        Placed {
            value,
            place: Some(place),
        }
    }
}

/// The error for anything that is wrong with a key or a value.
pub(super) fn invalid(
    place: impl Into<String>,
    problem: impl AsRef<str>,
    cure: impl Into<String>,
) -> Failure {
    Failure::ConfigInvalid {
        place: place.into(),
        problem: printable(problem.as_ref()),
        cure: cure.into(),
    }
}

/// Text from a file with its control characters escaped: an error is one line, and must not affect a terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() {
                c.escape_default().to_string()
            } else {
                c.to_string()
            }
        })
        .collect()
}

fn integer_value(integer: &DeInteger<'_>) -> Option<i128> {
    i128::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn with_article(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'i']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {kind}")
}
