//! Templates: texts with placeholders such as `{slots}` or `{secret.token}`.
//!
//! It reads no file and sends nothing. Invariant: a template names only what its request can know, so rendering
//! cannot fail, and a rendered value cannot end the string, header or path that it stands in.

use std::{collections::BTreeMap, fmt::Write as _};

use super::super::secret::Secret;
use crate::service::config::nearest;

/// What a placeholder stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Word {
    /// The number of slots that the target is to have.
    Slots,
    /// `true` or `false`: whether the target is to be paused.
    Paused,
    /// `paused` or `running`.
    State,
    /// The target's name.
    Target,
    /// The plan's sequence number.
    Seq,
    /// The plan's digest.
    Plan,
    /// The same for every repetition of one change, and different for every other: an idempotency key.
    Key,
}

impl Word {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Slots, "slots"),
        (Self::Paused, "paused"),
        (Self::State, "state"),
        (Self::Target, "target"),
        (Self::Seq, "seq"),
        (Self::Plan, "plan"),
        (Self::Key, "key"),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(word, _)| *word == self).map_or("", |(_, name)| name)
    }
}

/// Secrets are written `{secret.NAME}`.
const SECRET_PREFIX: &str = "secret.";

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Word(Word),
    Secret(String),
}

/// A text with placeholders, all of them known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

/// A placeholder that cannot stand where it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadPlaceholder {
    /// It, with its braces.
    pub(super) placeholder: String,
    /// What is wrong with it.
    pub(super) message: String,
}

/// What a template may name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    pub(super) words: &'a [Word],
    pub(super) secrets: &'a [&'a str],
}

/// What placeholders are replaced by. A word that no template of the request names may be empty.
#[derive(Clone, Debug, Default)]
pub(super) struct Values {
    pub(super) words: BTreeMap<Word, String>,
    pub(super) secrets: BTreeMap<String, Secret>,
}

/// How a value is written so that it stays within its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As it is.
    Plain,
    /// In a URL or a form: everything but unreserved characters is percent-encoded.
    Url,
    /// Inside or outside of a JSON string.
    Json,
}

impl Template {
    /// Reads a text. `{` begins a placeholder only when a name and `}` follow, so JSON needs no escapes.
    pub(super) fn parse(text: &str, known: Known<'_>) -> Result<Self, BadPlaceholder> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let after = &rest[open + 1..];
            let name = after.split_once('}').map(|(name, _)| name).filter(|name| is_name(name));
            let Some(name) = name else {
                plain.push_str(&rest[..=open]);
                rest = after;
                continue;
            };
            plain.push_str(&rest[..open]);
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(known.piece(name)?);
            rest = &after[name.len() + 1..];
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }

    /// A text without placeholders.
    pub(super) fn plain(text: &str) -> Self {
        Self(vec![Piece::Text(text.to_owned())])
    }

    /// The text with its placeholders replaced.
    pub(super) fn render(&self, values: &Values, form: Form) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(plain) => text.push_str(plain),
                Piece::Word(word) => {
                    push_value(&mut text, values.words.get(word).map_or("", String::as_str), form);
                }
                Piece::Secret(name) => {
                    push_value(&mut text, values.secrets.get(name).map_or("", Secret::expose), form);
                }
            }
        }
        text
    }

    /// Whether one of these words stands in it.
    pub(super) fn names_any(&self, words: &[Word]) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Word(word) if words.contains(word)))
    }

    /// The first secret that it names.
    pub(super) fn first_secret(&self) -> Option<&str> {
        self.0.iter().find_map(|piece| match piece {
            Piece::Secret(name) => Some(name.as_str()),
            Piece::Text(_) | Piece::Word(_) => None,
        })
    }
}

impl Known<'_> {
    fn piece(&self, name: &str) -> Result<Piece, BadPlaceholder> {
        if let Some(secret) = name.strip_prefix(SECRET_PREFIX)
            && self.secrets.contains(&secret)
        {
            return Ok(Piece::Secret(secret.to_owned()));
        }
        if let Some(word) = self.words.iter().find(|word| word.name() == name) {
            return Ok(Piece::Word(*word));
        }
        let placeholder = format!("{{{name}}}");
        let message = if Word::ALL.iter().any(|(_, other)| *other == name) {
            format!("{placeholder} has no value in this request; known here: {}", self.list())
        } else {
            let secrets: Vec<String> =
                self.secrets.iter().map(|secret| format!("{SECRET_PREFIX}{secret}")).collect();
            let names = self.words.iter().map(|word| word.name()).chain(secrets.iter().map(String::as_str));
            match nearest(name, names) {
                Some(near) => format!("{placeholder} is not known here; did you mean {{{near}}}?"),
                None => format!("{placeholder} is not known here; known are: {}", self.list()),
            }
        };
        Err(BadPlaceholder { placeholder, message })
    }

    fn list(&self) -> String {
        let words = self.words.iter().map(|word| format!("{{{}}}", word.name()));
        let secrets = self.secrets.iter().map(|secret| format!("{{{SECRET_PREFIX}{secret}}}"));
        words.chain(secrets).collect::<Vec<_>>().join(", ")
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn push_value(text: &mut String, value: &str, form: Form) {
    match form {
        Form::Plain => text.push_str(value),
        Form::Url => text.push_str(&percent_encoded(value)),
        Form::Json => {
            // A JSON string without its quotation marks; a number or `true` stays what it is.
            let quoted = serde_json::Value::String(value.to_owned()).to_string();
            text.push_str(&quoted[1..quoted.len() - 1]);
        }
    }
}

/// The value for one segment of a path or one value of a query.
pub(in super::super) fn percent_encoded(value: &str) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing into a string cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Form, Known, Secret, Template, Values, Word};

    const KNOWN: Known<'_> = Known { words: &[Word::Slots, Word::Target, Word::Seq], secrets: &["token"] };

    fn values() -> Values {
        Values {
            words: [(Word::Slots, "6"), (Word::Target, "airflow/a \"b\""), (Word::Seq, "37")]
                .map(|(word, value)| (word, value.to_owned()))
                .into(),
            secrets: [("token".to_owned(), Secret::received("s3 cret".to_owned()))].into(),
        }
    }

    #[test]
    fn placeholders_are_replaced_and_braces_of_json_stay() {
        let rows = [
            ("", Form::Plain, ""),
            ("no placeholder", Form::Plain, "no placeholder"),
            ("{slots}", Form::Json, "6"),
            (
                r#"{"slots":{slots},"of":"{target}","a":{}}"#,
                Form::Json,
                r#"{"slots":6,"of":"airflow/a \"b\"","a":{}}"#,
            ),
            ("http://h/pools/{target}?n={seq}", Form::Url, "http://h/pools/airflow%2Fa%20%22b%22?n=37"),
            ("Bearer {secret.token}", Form::Plain, "Bearer s3 cret"),
            ("{{slots}}", Form::Plain, "{6}"),
            ("{ slots } {", Form::Plain, "{ slots } {"),
            ("{slots", Form::Plain, "{slots"),
            ("é{slots}é", Form::Plain, "é6é"),
        ];
        for (text, form, expected) in rows {
            let template = Template::parse(text, KNOWN).unwrap_or_else(|error| panic!("{text}: {error:?}"));
            assert_eq!(template.render(&values(), form), expected, "{text}");
        }
    }

    #[test]
    fn a_value_cannot_leave_its_json_string() {
        let mut values = values();
        for hostile in ["\"", "\\", "a\"b\\", "\"}{\"", "\u{1}\n", "\"\""] {
            values.words.insert(Word::Target, hostile.to_owned());
            let template = Template::parse(r#"["{target}"]"#, KNOWN).expect("it is known");
            let rendered = template.render(&values, Form::Json);
            assert_eq!(
                serde_json::from_str::<Vec<String>>(&rendered).expect("it is JSON"),
                [hostile],
                "{rendered}"
            );
        }
    }

    #[test]
    fn an_unknown_placeholder_is_told_with_the_nearest_known() {
        let rows = [
            ("{slot}", "{slot}", "did you mean {slots}?"),
            ("{Slots}", "{Slots}", "did you mean {slots}?"),
            ("{secret.tokn}", "{secret.tokn}", "did you mean {secret.token}?"),
            ("{temperature}", "{temperature}", "known are: {slots}, {target}, {seq}, {secret.token}"),
            ("{key}", "{key}", "has no value in this request; known here: {slots}"),
        ];
        for (text, placeholder, message) in rows {
            let error = Template::parse(text, KNOWN).expect_err(text);
            assert_eq!(error.placeholder, placeholder);
            assert!(error.message.contains(message), "{}", error.message);
        }
    }
}
