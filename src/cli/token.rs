//! `quorate token`: makes, lists and revokes the tokens that let clients in at one server.
//!
//! It asks nobody: it changes the server's file, which the server reads again. Invariant: a token is shown once, when
//! it is made, and never stored.

use serde::Serialize;
use std::{fmt, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::PathBuf};

use super::{ExitCode, Failure, output::Output, utc::Utc};
use crate::{
    service::{
        clock::wall_clock,
        tokens::{ListFileError, ListedToken, Scope, Token, TokenName, add_token, read_tokens, revoke_token},
    },
    types::Millis,
};

const EXAMPLES: &str = "\
Examples:
  quorate token create --tokens tokens.json --name airflow --scope ingest --out airflow.token
  quorate token create --tokens tokens.json --name pool-agent --scope agent --expires 90d --out agent.token
  quorate token create --tokens tokens.json --name grafana --scope read
      without --out the token is printed, once
  quorate token list --tokens tokens.json
  quorate token revoke --tokens tokens.json airflow

A running server reads the file again when it changes: a new token lets in, and a revoked one does not, after a
second. Clients take their token from a file: --token-file, or OTEL_EXPORTER_OTLP_HEADERS for an engine's exporter.

Exit codes: 0 done, 1 failed, 2 usage, 78 the file of tokens cannot be used.";

/// Make, list and revoke the tokens that let clients in at a server
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a token; it is shown now and never again
    Create(Create),
    /// Show the tokens' names, scopes and ends
    List(File),
    /// Let nobody in with this token any more
    Revoke(Revoke),
}

#[derive(Debug, clap::Args)]
struct File {
    /// The server's file of tokens, as its configuration names it; made when there is none
    #[arg(long, env = "QUORATE_TOKENS", value_name = "FILE")]
    tokens: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Create {
    #[command(flatten)]
    file: File,
    /// Who will hold it
    #[arg(long, value_name = "NAME")]
    name: TokenName,
    /// What it is for; several with commas
    #[arg(long, value_enum, value_name = "SCOPE", required = true, value_delimiter = ',')]
    scope: Vec<Scope>,
    /// How long it is valid, such as 12h or 90d; for ever when absent
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    expires: Option<Millis>,
    /// A new file for the token, readable by its owner alone; standard output when absent
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Revoke {
    #[command(flatten)]
    file: File,
    /// The token's name
    #[arg(value_name = "NAME")]
    name: TokenName,
}

fn parse_span(text: &str) -> Result<Millis, String> {
    const UNITS: [(char, u64); 4] = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)];
    let seconds = UNITS.iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(*unit)?.parse().ok()?;
        // A hundred years bound what the sum with the clock can be.
        number.checked_mul(*seconds).filter(|seconds| (1..=100 * 366 * 86_400).contains(seconds))
    });
    seconds.map(Millis::from_secs).ok_or_else(|| "a span looks like 30m, 12h or 90d".to_owned())
}

/// Runs the command.
///
/// # Errors
/// [`Failure`] when the file of tokens cannot be used, or holds no such token.
pub fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Failure> {
    match &arguments.action {
        Action::Create(create) => make(create, output)?,
        Action::List(File { tokens }) => {
            let now = wall_clock();
            let listed = read_tokens(tokens).map_err(failure)?;
            if listed.listed().is_empty() {
                output.say("no token is listed")?;
            }
            for token in listed.listed() {
                output.event(&Listed { token, expired: token.has_expired(now) })?;
            }
        }
        Action::Revoke(Revoke { file, name }) => {
            revoke_token(&file.tokens, name).map_err(failure)?;
            output.event(&Revoked { name })?;
        }
    }
    Ok(ExitCode::Done)
}

fn make(create: &Create, output: Output) -> Result<(), Failure> {
    let Create { file, name, scope, expires, out } = create;
    let token = Token::generate().map_err(Failure::failed)?;
    let now = wall_clock();
    let listed = ListedToken {
        name: name.clone(),
        scopes: scope.iter().copied().collect(),
        sha256: token.digest(),
        created_ms: now,
        expires_ms: expires.map(|span| now.plus(span)),
    };
    // The token is written first: one that is listed and that nobody has would only have to be revoked.
    let written = out.as_ref().map(|path| write_new(path, &token)).transpose()?;
    if let Err(error) = add_token(&file.tokens, listed.clone()) {
        if let Some(path) = written {
            // What is left of a failure is of no use and no harm.
            let _ = std::fs::remove_file(path);
        }
        return Err(failure(error));
    }
    let secret = out.is_none().then(|| token.reveal());
    output.event(&Created { token: &listed, secret, out: out.as_ref() })?;
    Ok(())
}

fn write_new<'a>(path: &'a PathBuf, token: &Token) -> Result<&'a PathBuf, Failure> {
    let failed = |error| {
        let error = anyhow::Error::new(error).context(format!("cannot write {}", path.display()));
        Failure::failed(error)
    };
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    writeln!(file, "{}", token.reveal()).and_then(|()| file.sync_all()).map_err(failed)?;
    Ok(path)
}

fn failure(error: ListFileError) -> Failure {
    match &error {
        ListFileError::Unknown { .. } | ListFileError::TooMany(_) => Failure::failed(error),
        ListFileError::Twice { .. } => Failure::failed(error).next("choose another name, or revoke that one"),
        ListFileError::Missing(_)
        | ListFileError::Io { .. }
        | ListFileError::Readable { .. }
        | ListFileError::OtherOwner(_)
        | ListFileError::Malformed { .. } => Failure::configuration(error),
    }
}

fn scopes(token: &ListedToken) -> String {
    token.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(",")
}

#[derive(Serialize)]
#[serde(tag = "event", rename = "token_created")]
struct Created<'a> {
    #[serde(flatten)]
    token: &'a ListedToken,
    #[serde(rename = "token", skip_serializing_if = "Option::is_none")]
    secret: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    out: Option<&'a PathBuf>,
}

impl fmt::Display for Created<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.secret, self.out) {
            // Alone in its line, so that it can be piped to where it is kept.
            (Some(secret), _) => f.write_str(secret),
            (None, Some(path)) => write!(f, "{}: the token of {}", path.display(), self.token.name),
            (None, None) => Ok(()),
        }
    }
}

#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    token: &'a ListedToken,
    expired: bool,
}

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token;
        write!(f, "{}: {}, made {}", token.name, scopes(token), Utc(token.created_ms))?;
        match (token.expires_ms, self.expired) {
            (None, _) => Ok(()),
            (Some(end), false) => write!(f, ", valid until {}", Utc(end)),
            (Some(end), true) => write!(f, ", expired {}", Utc(end)),
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "event", rename = "token_revoked")]
struct Revoked<'a> {
    name: &'a TokenName,
}

impl fmt::Display for Revoked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} lets nobody in any more", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::parse_span;
    use crate::types::Millis;

    #[test]
    fn spans_have_units_and_an_end() {
        for (text, seconds) in [("45s", 45), ("30m", 1_800), ("12h", 43_200), ("90d", 7_776_000)] {
            assert_eq!(parse_span(text), Ok(Millis::from_secs(seconds)), "{text}");
        }
        for text in ["", "d", "0d", "-1d", "1.5h", "10", "1w", "99999d", "18446744073709551615d"] {
            assert!(parse_span(text).is_err(), "{text}");
        }
    }
}
