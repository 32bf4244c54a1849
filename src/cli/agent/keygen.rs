//! `quorate agent keygen`: makes an agent's key where the agent runs, so that the secret never travels.
//!
//! It binds the key to nothing. Invariant: it never overwrites a file.

use serde::Serialize;
use std::{fmt, path::PathBuf};

use crate::{
    cli::{ExitCode, Failure, output::Output},
    service::key_file::{generate_secret_key, write_public_key},
    types::Digest,
};

const EXAMPLES: &str = "\
Examples:
  quorate agent keygen --out agent.key

Writes the secret key to FILE, which only you can read, and the public key to FILE.pub. The public key alone
goes to the operators of the target's owner, who bind it to the target with `quorate agent enroll`.";

/// Make a new key for an agent
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The new file for the secret key
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Makes the key.
///
/// # Errors
/// [`Failure`] when a file exists or cannot be written.
pub(super) fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Failure> {
    let public = generate_secret_key(&arguments.out).map_err(Failure::failed)?.public();
    let public_file = PathBuf::from(format!("{}.pub", arguments.out.display()));
    write_public_key(&public_file, &public).map_err(Failure::failed)?;
    output.event(&Made {
        keyid: public.id(),
        ed25519: Digest::from_bytes(public.to_bytes()),
        secret_key_file: arguments.out.clone(),
        public_key_file: public_file,
    })?;
    Ok(ExitCode::Done)
}

#[derive(Debug, Serialize)]
struct Made {
    keyid: Digest,
    ed25519: Digest,
    secret_key_file: PathBuf,
    public_key_file: PathBuf,
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { keyid, ed25519, secret_key_file, public_key_file } = self;
        writeln!(f, "{ed25519}")?;
        writeln!(f, "  keyid   {keyid}")?;
        writeln!(f, "  secret  {} (keep it where the agent runs)", secret_key_file.display())?;
        write!(f, "  public  {}", public_key_file.display())
    }
}

#[cfg(test)]
mod tests {
    use super::{Arguments, run};
    use crate::{
        cli::output::{Format, Output},
        service::key_file::{read_public_key, read_secret_key},
    };

    #[test]
    fn a_made_key_reads_back_and_a_second_one_never_takes_its_place() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let out = folder.path().join("agent.key");
        let arguments = Arguments { out: out.clone() };
        run(&arguments, Output::new(Format::Jsonl)).expect("the folder is writable");
        let secret = read_secret_key(&out).expect("it was written");
        let public = read_public_key(&folder.path().join("agent.key.pub")).expect("it was written");
        assert_eq!(secret.public(), public);
        assert!(run(&arguments, Output::new(Format::Jsonl)).is_err());
        assert_eq!(read_secret_key(&out).expect("it is still there").public(), public);
    }
}
