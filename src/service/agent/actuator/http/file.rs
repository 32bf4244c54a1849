//! The file that describes an engine to the `http` actuator: TOML in, checked requests out.
//!
//! It sends nothing. Invariant: a [`HttpFile`] has requests that can be sent for every plan of its kind, and
//! every secret that they name could be read when the file was.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use toml::Spanned;

use super::{
    super::secret::{Secret, SecretSource},
    template::{Form, Known, Template, Values, Word},
};
use crate::service::{
    config::{ConfigError, Source, SpanText},
    http_client::{HttpClient, is_confidential},
};

/// What every request may name.
const ALWAYS: [Word; 3] = [Word::Target, Word::Seq, Word::Plan];
/// What the request that gives a pool its slots may name besides.
const FOR_SLOTS: [Word; 5] = [Word::Target, Word::Seq, Word::Plan, Word::Key, Word::Slots];
/// What a request that pauses or resumes may name besides.
const FOR_SWITCH: [Word; 6] = [Word::Target, Word::Seq, Word::Plan, Word::Key, Word::Paused, Word::State];

/// An engine on the same network answers within seconds; a plan's windows do not wait for longer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The agent does nothing else meanwhile, so a stop could not reach it for longer.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);
/// One pool or job with its description.
const ANSWER_BYTES: usize = 64 * 1024;
/// A list that needs more is the wrong request for one target's state.
const MOST_ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// Larger files are none of ours.
const MOST_FILE_BYTES: u64 = 64 * 1024;

/// A checked file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpFile {
    pub(super) timeout: Duration,
    pub(super) answer_bytes: usize,
    pub(super) secrets: BTreeMap<String, SecretSource>,
    pub(super) read: Request,
    pub(super) target: Described,
}

/// What the target is, where its state stands in the answer, and what sets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Described {
    /// A pool: the JSON pointer to its number of slots.
    Pool { slots: String, set: Request },
    /// A switch: the JSON pointer to whether it is paused.
    Switch { paused: String, pause: Request, resume: Request },
}

/// A request with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Template,
    pub(super) headers: Vec<(HeaderName, Template)>,
    pub(super) body: Option<(Template, Form)>,
    expect: Vec<StatusCode>,
    done: Vec<StatusCode>,
}

impl Request {
    /// Whether this status means that it has been done, now or before.
    pub(super) fn is_success(&self, status: StatusCode) -> bool {
        let expected =
            if self.expect.is_empty() { status.is_success() } else { self.expect.contains(&status) };
        expected || self.done.contains(&status)
    }

    /// Whether this status means that it had been done before.
    pub(super) fn was_done_before(&self, status: StatusCode) -> bool {
        self.done.contains(&status)
    }
}

impl HttpFile {
    /// Reads and checks a file, and reads the secrets once to see that they are there.
    ///
    /// # Errors
    /// [`ConfigError`] says what is wrong, and where.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        use std::io::Read as _;
        let name = path.display().to_string();
        let unreadable =
            |error: std::io::Error| ConfigError::of_file(&name, format!("cannot be read: {error}"));
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(MOST_FILE_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > MOST_FILE_BYTES {
            return Err(ConfigError::of_file(&name, format!("it has more than {MOST_FILE_BYTES} bytes")));
        }
        Self::parse(&name, &text, path.parent().unwrap_or(Path::new("")))
    }

    /// Checks a file's text; `file` is its name in errors, and secrets' paths are relative to `folder`.
    ///
    /// # Errors
    /// [`ConfigError`] says what is wrong, and where.
    pub fn parse(file: &str, text: &str, folder: &Path) -> Result<Self, ConfigError> {
        let source = Source { file, text };
        let text = source.parse::<FileText>()?;
        let in_clear = text.in_clear;
        text.check(Checking { source, folder, in_clear })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    timeout: Option<Spanned<SpanText>>,
    answer_bytes: Option<Spanned<usize>>,
    #[serde(default)]
    in_clear: bool,
    #[serde(default)]
    secret: BTreeMap<Spanned<String>, Spanned<SecretText>>,
    read: Spanned<RequestText>,
    state: Spanned<StateText>,
    set: Option<Spanned<RequestText>>,
    pause: Option<Spanned<RequestText>>,
    resume: Option<Spanned<RequestText>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretText {
    file: Option<PathBuf>,
    env: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateText {
    slots: Option<Spanned<String>>,
    paused: Option<Spanned<String>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestText {
    method: MethodText,
    url: Spanned<String>,
    #[serde(default)]
    headers: BTreeMap<Spanned<String>, Spanned<String>>,
    body: Option<Spanned<String>>,
    #[serde(default)]
    expect: Vec<Spanned<u16>>,
    #[serde(default)]
    done: Vec<Spanned<u16>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum MethodText {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

/// What the checks need to know besides the text itself.
#[derive(Clone, Copy, Debug)]
struct Checking<'a> {
    source: Source<'a>,
    folder: &'a Path,
    /// Whether secrets may go over http:// to other machines.
    in_clear: bool,
}

impl FileText {
    fn check(self, checking: Checking<'_>) -> Result<HttpFile, ConfigError> {
        let source = checking.source;
        let timeout = match self.timeout {
            None => TIMEOUT,
            Some(span) => {
                let timeout = Duration::from_millis(span.get_ref().0.as_millis());
                if timeout.is_zero() || timeout > LONGEST_TIMEOUT {
                    return Err(source.error(span.span(), "timeout is more than 0 and at most \"60s\""));
                }
                timeout
            }
        };
        let answer_bytes = match self.answer_bytes {
            None => ANSWER_BYTES,
            Some(bytes) if (1..=MOST_ANSWER_BYTES).contains(bytes.get_ref()) => bytes.into_inner(),
            Some(bytes) => {
                let message = format!("answer_bytes is from 1 to {MOST_ANSWER_BYTES}");
                return Err(source.error(bytes.span(), message));
            }
        };
        let mut secrets = BTreeMap::new();
        for (name, secret) in self.secret {
            let place = checking.secret(&name, secret)?;
            secrets.insert(name.into_inner(), place);
        }
        let names: Vec<&str> = secrets.keys().map(String::as_str).collect();
        let request =
            |text: &RequestText, words: &[Word]| checking.request(text, Known { words, secrets: &names });
        let read = request(self.read.get_ref(), &ALWAYS)?;
        let state = self.state.get_ref();
        let target = match (&state.slots, &state.paused) {
            (Some(slots), None) => {
                let set = checking.only_set(self.set, [self.pause, self.resume])?;
                let checked = request(set.get_ref(), &FOR_SLOTS)?;
                checking.says(&set, &checked, &[Word::Slots], "{slots}")?;
                Described::Pool { slots: checking.pointer(slots)?, set: checked }
            }
            (None, Some(paused)) => {
                let (pause, resume) = match (self.set, self.pause, self.resume) {
                    (Some(set), None, None) => {
                        let checked = request(set.get_ref(), &FOR_SWITCH)?;
                        checking.says(&set, &checked, &[Word::Paused, Word::State], "{paused} or {state}")?;
                        (checked.clone(), checked)
                    }
                    (None, Some(pause), Some(resume)) => {
                        (request(pause.get_ref(), &FOR_SWITCH)?, request(resume.get_ref(), &FOR_SWITCH)?)
                    }
                    (Some(_), _, _) | (None, _, _) => {
                        let message = "a switch is set by [set], or by [pause] and [resume] together";
                        return Err(source.error(self.state.span(), message));
                    }
                };
                Described::Switch { paused: checking.pointer(paused)?, pause, resume }
            }
            (Some(_), Some(_)) | (None, None) => {
                let message = "[state] has either `slots` (a pool) or `paused` (a switch): the JSON pointer \
                               to it in the answer of [read]";
                return Err(source.error(self.state.span(), message));
            }
        };
        Ok(HttpFile { timeout, answer_bytes, secrets, read, target })
    }
}

impl Checking<'_> {
    fn error(&self, span: Range<usize>, message: impl Into<String>) -> ConfigError {
        self.source.error(span, message)
    }

    fn secret(&self, name: &Spanned<String>, text: Spanned<SecretText>) -> Result<SecretSource, ConfigError> {
        let span = text.span();
        let place = match text.into_inner() {
            SecretText { file: Some(file), env: None } => SecretSource::File(self.folder.join(file)),
            SecretText { file: None, env: Some(variable) } => SecretSource::Environment(variable),
            SecretText { file: Some(_), env: Some(_) } | SecretText { file: None, env: None } => {
                let message = format!("secret {} has either `file` or `env`", name.get_ref());
                return Err(self.error(span, message));
            }
        };
        match place.read() {
            Ok(_) => Ok(place),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                Err(self.error(span, format!("{error}{}", cause.unwrap_or_default())))
            }
        }
    }

    fn only_set(
        &self,
        set: Option<Spanned<RequestText>>,
        others: [Option<Spanned<RequestText>>; 2],
    ) -> Result<Spanned<RequestText>, ConfigError> {
        if let Some(other) = others.into_iter().flatten().next() {
            return Err(
                self.error(other.span(), "a pool is set by [set]; [pause] and [resume] are for `paused`")
            );
        }
        set.ok_or_else(|| {
            ConfigError::of_file(self.source.file, "[set] is missing: what gives the pool {slots}?")
        })
    }

    /// A request that never says the state cannot set it.
    fn says(
        &self,
        text: &Spanned<RequestText>,
        request: &Request,
        words: &[Word],
        names: &str,
    ) -> Result<(), ConfigError> {
        let in_headers = request.headers.iter().any(|(_, value)| value.names_any(words));
        let in_body = request.body.as_ref().is_some_and(|(body, _)| body.names_any(words));
        if in_headers || in_body || request.url.names_any(words) {
            Ok(())
        } else {
            Err(self
                .error(text.span(), format!("this request never says {names}, so it cannot set the state")))
        }
    }

    fn pointer(&self, pointer: &Spanned<String>) -> Result<String, ConfigError> {
        let text = pointer.get_ref();
        if text.is_empty() || text.starts_with('/') {
            Ok(text.clone())
        } else {
            let message = format!("{text:?} is no JSON pointer: it begins with `/`, such as \"/{text}\"");
            Err(self.error(pointer.span(), message))
        }
    }

    fn request(&self, text: &RequestText, known: Known<'_>) -> Result<Request, ConfigError> {
        let samples = samples(known);
        let url = self.template(&text.url, known)?;
        if let Some(secret) = url.first_secret() {
            let message = format!(
                "the secret {secret} may not stand in a URL, because URLs are logged: put it into a header"
            );
            return Err(self.error(text.url.span(), message));
        }
        let address = url.render(&samples, Form::Url);
        HttpClient::new().check(&address).map_err(|error| self.error(text.url.span(), error.to_string()))?;
        if !self.in_clear && !known.secrets.is_empty() && !is_confidential(&address) {
            let message = "secrets are sent to another machine only over https://; where the network between is \
                           trusted, say `in_clear = true` at the top of this file";
            return Err(self.error(text.url.span(), message));
        }
        let mut headers = Vec::new();
        for (name, value) in &text.headers {
            let template = self.template(value, known)?;
            let name = name
                .get_ref()
                .parse::<HeaderName>()
                .map_err(|_| self.error(name.span(), format!("{:?} is no header name", name.get_ref())))?;
            HeaderValue::from_str(&template.render(&samples, Form::Plain))
                .map_err(|_| self.error(value.span(), format!("this cannot stand in the header {name}")))?;
            headers.push((name, template));
        }
        let body = match &text.body {
            None => None,
            Some(body) => Some(self.body(body, &mut headers, &samples, known)?),
        };
        let expect = self.statuses(&text.expect)?;
        let done = self.statuses(&text.done)?;
        if let Some(twice) =
            text.done.iter().find(|code| text.expect.iter().any(|other| other.get_ref() == code.get_ref()))
        {
            let message = format!("{} stands in `expect` and in `done`", twice.get_ref());
            return Err(self.error(twice.span(), message));
        }
        let method = match text.method {
            MethodText::Get => Method::GET,
            MethodText::Post => Method::POST,
            MethodText::Put => Method::PUT,
            MethodText::Patch => Method::PATCH,
            MethodText::Delete => Method::DELETE,
        };
        Ok(Request { method, url, headers, body, expect, done })
    }

    fn body(
        &self,
        text: &Spanned<String>,
        headers: &mut Vec<(HeaderName, Template)>,
        samples: &Values,
        known: Known<'_>,
    ) -> Result<(Template, Form), ConfigError> {
        let body = self.template(text, known)?;
        let media_type = headers.iter().find(|(name, _)| *name == header::CONTENT_TYPE);
        let form = match media_type.map(|(_, value)| value.render(samples, Form::Plain)) {
            None => Form::Json,
            Some(media_type) if media_type.contains("json") => Form::Json,
            Some(media_type) if media_type.contains("x-www-form-urlencoded") => Form::Url,
            Some(_) => Form::Plain,
        };
        if media_type.is_none() {
            headers.push((header::CONTENT_TYPE, Template::plain("application/json")));
        }
        if form == Form::Json {
            let sample = body.render(samples, Form::Json);
            serde_json::from_str::<serde_json::Value>(&sample).map_err(|error| {
                self.error(
                    text.span(),
                    format!("with its placeholders filled in, the body is no JSON: {error}"),
                )
            })?;
        }
        Ok((body, form))
    }

    fn template(&self, text: &Spanned<String>, known: Known<'_>) -> Result<Template, ConfigError> {
        Template::parse(text.get_ref(), known).map_err(|bad| {
            // Braces are never escaped in TOML, so the placeholder stands in the file as it was read.
            let span = text.span();
            let written = self.source.text.get(span.clone()).unwrap_or_default();
            let start = span.start + written.find(&bad.placeholder).unwrap_or_default();
            self.error(start..span.end, bad.message)
        })
    }

    fn statuses(&self, codes: &[Spanned<u16>]) -> Result<Vec<StatusCode>, ConfigError> {
        let status = |code: &Spanned<u16>| match StatusCode::from_u16(*code.get_ref()) {
            Ok(status) if status.as_u16() >= 200 && status.as_u16() < 600 => Ok(status),
            Ok(_) | Err(_) => {
                let message = format!("{} is no status of a final answer: 200 to 599", code.get_ref());
                Err(self.error(code.span(), message))
            }
        };
        codes.iter().map(status).collect()
    }
}

/// Values of the kind that a plan gives, to try a template with.
fn samples(known: Known<'_>) -> Values {
    let word = |word: &Word| {
        let value = match word {
            Word::Slots | Word::Seq => "1",
            Word::Paused => "true",
            Word::State => "paused",
            Word::Target | Word::Plan | Word::Key => "x",
        };
        (*word, value.to_owned())
    };
    Values {
        words: known.words.iter().map(word).collect(),
        secrets: known
            .secrets
            .iter()
            .map(|name| ((*name).to_owned(), Secret::received("x".to_owned())))
            .collect(),
    }
}
