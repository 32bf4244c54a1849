//! `quorate agent enroll`: an operator of the target's owner binds an agent's key, or takes a binding back.
//!
//! Invariant: only public keys go over the wire.

use std::path::{Path, PathBuf};

use crate::{
    cli::{
        ExitCode, Failure,
        operator::{OperatorArguments, Session, target},
        output::Output,
    },
    knowledge::operator_request::Request,
    service::key_file::read_public_key,
    types::{Digest, KeyId, TargetId},
};

const EXAMPLES: &str = "\
Examples:
  quorate agent keygen --out agent.key
  quorate agent enroll --target airflow/extract_pool --agent-key agent.key.pub --operator-key operator.key \\
      --root root.json --replica https://10.0.0.1:8100 --replica https://10.0.0.2:8100
  quorate agent enroll --target airflow/extract_pool --agent-key agent.key.pub --replaces KEYID --operator-key operator.key
  quorate agent enroll --target airflow/extract_pool --unbind KEYID --operator-key operator.key

Receipts count only from keys that are bound to their target, at most eight at a time. `quorate status -o jsonl` shows
the identifiers of the bound keys.

Exit codes: 0 committed, 1 nobody took it or it was not committed in time, 4 the key or the request is refused.";

/// Bind an agent's key to a target, so that its receipts count
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The target's name
    #[arg(long, value_name = "NAME", value_parser = target)]
    target: TargetId,
    #[command(flatten)]
    what: What,
    /// The identifier of the bound key whose place the new one takes
    #[arg(long, value_name = "KEYID", requires = "agent_key")]
    replaces: Option<KeyId>,
    #[command(flatten)]
    operator: OperatorArguments,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct What {
    /// The agent's public key: 64 hexadecimal characters, or the file that `quorate agent keygen` wrote
    #[arg(long, value_name = "HEX|FILE")]
    agent_key: Option<String>,
    /// Unbind the key with this identifier instead
    #[arg(long, value_name = "KEYID")]
    unbind: Option<KeyId>,
}

/// Orders the binding.
///
/// # Errors
/// [`Failure`] when it is refused, or its end is not known.
pub(super) async fn run(arguments: Arguments, output: Output) -> Result<ExitCode, Failure> {
    let Arguments { target, what, replaces, operator } = arguments;
    let request = match (what.agent_key, what.unbind) {
        (Some(text), _) => Request::BindAgent { target, ed25519: public_key(&text)?, replaces },
        (None, Some(keyid)) => Request::UnbindAgent { target, keyid },
        (None, None) => return Err(Failure::usage(anyhow::anyhow!("--agent-key or --unbind is missing"))),
    };
    Session::open(operator, output).await?.order(request).await
}

fn public_key(text: &str) -> Result<Digest, Failure> {
    if let Ok(key) = text.parse() {
        return Ok(key);
    }
    let path = PathBuf::from(text);
    if looks_secret(&path) {
        let error = anyhow::anyhow!("{text} is readable by its owner alone, as a secret key is");
        return Err(Failure::refused(error).next("give the public key, the file that ends in .pub"));
    }
    let key = read_public_key(&path).map_err(Failure::failed)?;
    Ok(Digest::from_bytes(key.to_bytes()))
}

/// A secret key's seed may by chance be a public key as well: its file's mode tells them apart.
fn looks_secret(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o077 == 0)
        && path.extension().is_none_or(|extension| extension != "pub")
}
