//! [`ConfigError`]: what is wrong with a configuration, and where. One line that a person can act on; for an
//! unknown name it offers the nearest known one. Invariant: lines and columns count from 1, in characters.

use std::fmt;

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
}

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    file: String,
    place: Option<Place>,
    message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, place, message } = self;
        match place {
            Some(Place { line, column }) => write!(f, "{file}:{line}:{column}: {message}"),
            None => write!(f, "{file}: {message}"),
        }
    }
}

impl ConfigError {
    /// An error that lies in no one place of the file.
    pub(in crate::service) fn of_file(file: &str, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), place: None, message: message.into() }
    }

    /// Where the error lies, when it lies in one place.
    #[must_use]
    pub const fn place(&self) -> Option<Place> {
        self.place
    }

    /// What is wrong, without where.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// A file's name and text, for errors that point into it.
#[derive(Clone, Copy, Debug)]
pub(in crate::service) struct Source<'a> {
    pub(in crate::service) file: &'a str,
    pub(in crate::service) text: &'a str,
}

impl Source<'_> {
    /// An error at a byte range of the text.
    pub(in crate::service) fn error(
        &self,
        span: std::ops::Range<usize>,
        message: impl Into<String>,
    ) -> ConfigError {
        ConfigError {
            file: self.file.to_owned(),
            place: Some(self.place(span.start)),
            message: message.into(),
        }
    }

    /// The text as this type.
    pub(in crate::service) fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, ConfigError> {
        toml::from_str(self.text).map_err(|error| {
            let message = with_nearest(error.message());
            match error.span() {
                Some(span) => self.error(span, message),
                None => ConfigError::of_file(self.file, message),
            }
        })
    }

    fn place(&self, byte: usize) -> Place {
        // A span may end the text; one inside a character would be the parser's mistake, not a reason to panic.
        let before = self.text.get(..byte).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

/// Serde says "unknown field `x`, expected one of `a`, `b`": the names in backticks are the unknown one and
/// then the known ones.
fn with_nearest(message: &str) -> String {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
    match quoted.split_first() {
        Some((wrong, known)) if unknown => match nearest(wrong, known.iter().copied()) {
            Some(near) => format!("`{wrong}` is not known here; did you mean `{near}`?"),
            None => message.to_owned(),
        },
        _ => message.to_owned(),
    }
}

/// The known name that is nearest to a wrong one, if it is near enough to be what was meant: at most a third
/// of its letters differ, or two, or the wrong name is a part of it.
pub(in crate::service) fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = |name: &str| (name.chars().count() / 3).max(2);
    known
        .map(|name| (edit_distance(wrong, name), name))
        .filter(|(distance, name)| *distance <= allowed(name) || (wrong.len() > 2 && name.contains(wrong)))
        .min()
        .map(|(_, name)| name)
}

/// How many characters must be inserted, removed or replaced to turn one text into the other (Levenshtein).
fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, character) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(character != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::{Place, Source, edit_distance, nearest};

    #[test]
    fn distances_count_single_changes() {
        let rows = [("", "", 0), ("above", "abov", 1), ("until", "untli", 2), ("", "abc", 3), ("é", "e", 1)];
        for (from, to, distance) in rows {
            assert_eq!(edit_distance(from, to), distance, "{from} {to}");
        }
    }

    #[test]
    fn only_a_near_name_is_offered() {
        let known = || ["cooldown", "expiry", "risk"].into_iter();
        assert_eq!(nearest("cooldwon", known()), Some("cooldown"));
        assert_eq!(nearest("exipry", known()), Some("expiry"));
        assert_eq!(nearest("down", known()), Some("cooldown"));
        assert_eq!(nearest("verify_within", known()), None);
    }

    #[test]
    fn a_place_counts_characters() {
        let source = Source { file: "f", text: "a = \"é\" # é\nb = 1" };
        assert_eq!(source.place(0), Place { line: 1, column: 1 });
        assert_eq!(source.place(source.text.find('b').expect("it is there")), Place { line: 2, column: 1 });
        assert_eq!(source.place(source.text.len()), Place { line: 2, column: 6 });
        assert_eq!(source.place(1_000), Place { line: 2, column: 6 });
    }
}
