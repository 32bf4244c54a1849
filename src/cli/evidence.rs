//! `quorate evidence`: what is proven of replicas that broke a rule; and whether a file proves it, offline.
//!
//! `verify` asks nobody. Invariant: exit code 0 of `verify` means that the offender's own signatures prove what is shown,
//! under the committee of the root that was given.

use std::{
    fmt, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;

use super::{ClientFlags, ExitCode, Failure, output::Output, utc::Utc, wait_for};
use crate::{
    knowledge::{
        evidence::{EvidenceKind, MAX_EVIDENCE_DOCUMENT_BYTES, VerifiedEvidence},
        root::VerifiedRoot,
    },
    service::{
        api::ProvenOffences,
        http_client::{Bounds, HttpClient},
        status::EvidenceStatus,
    },
    types::{Digest, Epoch, KeyId, MAX_ENVELOPE_BYTES},
};

const EXAMPLES: &str = "\
Examples:
  quorate evidence list --replica https://10.0.0.1:8100
  quorate evidence show DIGEST --replica https://10.0.0.1:8100 > evidence.json
  quorate evidence verify evidence.json --root root.json

Evidence proves that a replica's key signed what an honest replica with its journal never signs together. The key may
belong to a liar, be in use twice, or have lost its journal: docs/security.md says how to tell.

Exit codes: 0 done, 1 the replica does not answer or a file cannot be read, 4 the file proves nothing.";

/// As for `quorate status`.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// A committee of a hundred has at most some thousand lines of 250 bytes.
const LIST_BYTES: usize = 1024 * 1024;

/// Show and verify what is proven of replicas that broke a rule
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Verify a piece of evidence against a root, offline
    Verify(VerifyArguments),
    /// List what is proven, as a replica says
    List(AskArguments),
    /// Write the document of one proof, for `verify`
    Show(ShowArguments),
}

#[derive(Debug, clap::Args)]
struct VerifyArguments {
    /// The document, as `show` writes it
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The pinned root: who the replicas are
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
}

#[derive(Debug, clap::Args)]
struct AskArguments {
    /// The replica's address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7101")]
    replica: String,
    #[command(flatten)]
    reach: ClientFlags,
}

#[derive(Debug, clap::Args)]
struct ShowArguments {
    /// The evidence's digest, as `list` and `quorate status` show it
    #[arg(value_name = "DIGEST")]
    digest: Digest,
    #[command(flatten)]
    ask: AskArguments,
}

/// Runs the command.
///
/// # Errors
/// [`Failure`] with code 4 when a document proves nothing, and 1 when a file or an answer cannot be had.
pub fn run(arguments: Arguments, output: Output) -> Result<ExitCode, Failure> {
    match arguments.command {
        Command::Verify(arguments) => verify(&arguments, output),
        Command::List(arguments) => wait_for(list(arguments, output)),
        Command::Show(arguments) => wait_for(show(arguments, output)),
    }
}

fn verify(arguments: &VerifyArguments, output: Output) -> Result<ExitCode, Failure> {
    let root = read(&arguments.root, MAX_ENVELOPE_BYTES)?;
    let root = VerifiedRoot::first(&root).map_err(|error| refused(&arguments.root, &error))?;
    let document = read(&arguments.file, MAX_EVIDENCE_DOCUMENT_BYTES)?;
    let verified = VerifiedEvidence::from_json(&document, root.committee());
    let verified = verified.map_err(|error| refused(&arguments.file, &error))?;
    output.event(&Account::of(&verified))?;
    Ok(ExitCode::Done)
}

async fn list(arguments: AskArguments, output: Output) -> Result<ExitCode, Failure> {
    let (client, url) = arguments.reach()?;
    let address = format!("{url}/v1/evidence");
    let body = ask(&client, &address, LIST_BYTES).await?;
    let said: ProvenOffences = serde_json::from_slice(&body)
        .map_err(|error| Failure::failed(anyhow::anyhow!("{address}: not a list of evidence: {error}")))?;
    for status in &said.evidence {
        output.event(&Line(status))?;
    }
    if said.evidence.is_empty() {
        output.say("nothing is proven of any replica")?;
    }
    Ok(ExitCode::Done)
}

/// The exact bytes that the replica serves: a later change of one would be seen.
async fn show(arguments: ShowArguments, output: Output) -> Result<ExitCode, Failure> {
    let (client, url) = arguments.ask.reach()?;
    let address = format!("{url}/v1/evidence/{}", arguments.digest);
    let body = ask(&client, &address, MAX_EVIDENCE_DOCUMENT_BYTES).await?;
    let document = String::from_utf8(body)
        .map_err(|_| Failure::failed(anyhow::anyhow!("{address}: the answer is no text")))?;
    output.document(&document)?;
    Ok(ExitCode::Done)
}

impl AskArguments {
    fn reach(&self) -> Result<(HttpClient, &str), Failure> {
        let client = self.reach.client(std::slice::from_ref(&self.replica))?;
        Ok((client, self.replica.trim_end_matches('/')))
    }
}

/// What an address answers, if it answers well.
pub(super) async fn ask(client: &HttpClient, address: &str, body_bytes: usize) -> Result<Vec<u8>, Failure> {
    let bounds = Bounds { timeout: ANSWER_TIMEOUT, body_bytes };
    let answer = client.get(address, bounds).await.map_err(Failure::failed)?;
    if answer.status.is_success() {
        return Ok(answer.body.to_vec());
    }
    let said: String = String::from_utf8_lossy(&answer.body).chars().take(300).collect();
    Err(Failure::failed(anyhow::anyhow!("{address} answers {}: {said}", answer.status)))
}

/// What a file holds, and a byte more than `longest` if it is longer.
pub(super) fn read(path: &Path, longest: usize) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    // One byte more than any document has, so that a longer file is refused as too large and not cut.
    let file = fs::File::open(path).and_then(|file| file.take(longest as u64 + 1).read_to_end(&mut bytes));
    file.map_err(|error: io::Error| {
        Failure::failed(anyhow::Error::new(error).context(format!("cannot read {}", path.display())))
    })?;
    Ok(bytes)
}

fn refused(path: &Path, error: &dyn fmt::Display) -> Failure {
    Failure::refused(anyhow::anyhow!("{}: {error}", path.display()))
}

/// What a document proves.
#[derive(Debug, Serialize)]
struct Account {
    replica: String,
    keyid: KeyId,
    epoch: Epoch,
    kind: EvidenceKind,
    about: String,
    digest: Digest,
}

impl Account {
    fn of(verified: &VerifiedEvidence) -> Self {
        Self {
            replica: verified.offender().to_string(),
            keyid: verified.keyid(),
            epoch: verified.epoch(),
            kind: verified.kind(),
            about: verified.slot().to_string(),
            digest: verified.digest(),
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "verified: {} by {} in epoch {}", self.kind.as_str(), self.replica, self.epoch)?;
        writeln!(f, "  about      {}", self.about)?;
        writeln!(f, "  signed by  {}", self.keyid)?;
        write!(f, "  digest     {}", self.digest)
    }
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Line<'a>(&'a EvidenceStatus);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EvidenceStatus { replica, kind, about, digest, at_ms } = self.0;
        write!(f, "{digest} {replica} {}: {about}", kind.as_str())?;
        at_ms.map_or(Ok(()), |at| write!(f, ", logged at {}", Utc(at)))
    }
}

#[cfg(test)]
mod tests {
    use super::{VerifyArguments, verify};
    use crate::{
        cli::{ExitCode, output::Output},
        knowledge::{
            evidence::VerifiedEvidence,
            fixtures::{committee, double_report, verified_root},
        },
    };
    use std::fs;

    #[test]
    fn a_file_verifies_as_written_and_with_no_byte_changed() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = |name: &str| folder.path().join(name);
        let document = VerifiedEvidence::verify(double_report(1), &committee()).expect("it is").to_json();
        fs::write(path("root"), verified_root().envelope().to_json()).expect("the folder is writable");
        let code = |bytes: &[u8]| {
            fs::write(path("file"), bytes).expect("the folder is writable");
            let arguments = VerifyArguments { file: path("file"), root: path("root") };
            verify(&arguments, Output::default()).map_err(|failure| failure.code())
        };
        assert_eq!(code(&document), Ok(ExitCode::Done));
        for at in 0..document.len() {
            let mut changed = document.clone();
            changed[at] ^= 1;
            assert_eq!(code(&changed), Err(ExitCode::Refused), "byte {at}");
        }
        let missing = VerifyArguments { file: path("missing"), root: path("root") };
        let failed = verify(&missing, Output::default()).map_err(|failure| failure.code());
        assert_eq!(failed, Err(ExitCode::Failed));
    }
}
