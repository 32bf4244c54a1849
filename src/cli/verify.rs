//! `quorate verify`: whether a plan is what a quorum signed, offline, from files alone.
//!
//! It asks nobody and reads no clock. Invariant: exit code 0 means that every document given was verified
//! against the root.

use serde::Serialize;
use std::{
    fmt, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use super::{ExitCode, Failure, output::Output, utc::Utc};
use crate::{
    execute::offline::{VerifiedDocuments, verify_documents},
    knowledge::{head::Mode, plan::DesiredState},
    types::{Cycle, Digest, HeadNumber, KeyId, MAX_ENVELOPE_BYTES, TargetId, UnixMillis},
};

const EXAMPLES: &str = "\
Examples:
  quorate verify --root root.json --plan plan.json
  quorate verify --root root.json --plan plan.json --head head.json -o jsonl

The root decides everything: get it by hand from the owners, not from whoever gave you the plan.
Whether the plan's time has come is not judged; its times are shown. examples/verify.py does the same.";

/// Verify a plan against a root, offline
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The pinned root: who the replicas and the owners are
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// The plan's envelope
    #[arg(long, value_name = "FILE")]
    plan: PathBuf,
    /// A head's envelope, which must name this plan
    #[arg(long, value_name = "FILE")]
    head: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// [`Failure`] with code 4 when a document is refused, and 1 when a file cannot be read.
pub fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Failure> {
    let (root, plan) = (read(&arguments.root)?, read(&arguments.plan)?);
    let head = arguments.head.as_deref().map(read).transpose()?;
    let verified = verify_documents(&root, &plan, head.as_deref()).map_err(Failure::refused)?;
    output.event(&Report::of(&verified))?;
    Ok(ExitCode::Done)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    // One byte more than any envelope has, so that a longer file is refused as too large and not cut.
    let longest = MAX_ENVELOPE_BYTES as u64 + 1;
    let file = fs::File::open(path).and_then(|file| file.take(longest).read_to_end(&mut bytes));
    file.map_err(|error: io::Error| {
        Failure::failed(anyhow::Error::new(error).context(format!("cannot read {}", path.display())))
    })?;
    Ok(bytes)
}

/// What the documents say.
#[derive(Debug, Serialize)]
struct Report {
    target: TargetId,
    seq: Cycle,
    plan: Digest,
    before: DesiredState,
    desired: DesiredState,
    rollback: DesiredState,
    issued_at: UnixMillis,
    not_before: UnixMillis,
    expires_at: UnixMillis,
    signers: Vec<Signer>,
    replicas: usize,
    quorum: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    head: Option<HeadReport>,
}

#[derive(Debug, Serialize)]
struct Signer {
    keyid: KeyId,
    owner: String,
}

#[derive(Debug, Serialize)]
struct HeadReport {
    number: HeadNumber,
    time: UnixMillis,
    mode: Mode,
}

impl Report {
    fn of(verified: &VerifiedDocuments) -> Self {
        let (root, plan) = (verified.root.root(), verified.plan.document());
        let owner_of = |key: &KeyId| {
            let owner = root.replicas.iter().find(|replica| replica.keyid == *key);
            owner.map_or_else(String::new, |replica| replica.owner.clone())
        };
        let head = verified.head.as_ref().and_then(|head| {
            let head = head.document();
            let entry = head.targets.iter().find(|entry| entry.target == plan.target)?;
            Some(HeadReport { number: head.number, time: head.time, mode: entry.mode })
        });
        let size = verified.root.committee().size();
        Self {
            target: plan.target.clone(),
            seq: plan.seq,
            plan: verified.plan.digest(),
            before: plan.preconditions.state,
            desired: plan.desired,
            rollback: plan.rollback,
            issued_at: plan.issued_at,
            not_before: plan.not_before,
            expires_at: plan.expires_at,
            signers: verified
                .plan
                .signers()
                .iter()
                .map(|keyid| Signer { keyid: *keyid, owner: owner_of(keyid) })
                .collect(),
            replicas: size.replicas(),
            quorum: size.quorum(),
            head,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "verified: plan {} for {}", self.seq, self.target)?;
        let signers = self.signers.len();
        writeln!(f, "  signed by  {signers} of {} replicas; {} are needed", self.replicas, self.quorum)?;
        for Signer { keyid, owner } in &self.signers {
            writeln!(f, "             {keyid:?} of {owner}")?;
        }
        writeln!(f, "  changes    {} to {}", self.before, self.desired)?;
        writeln!(f, "  taken back to {}", self.rollback)?;
        writeln!(f, "  issued     {}", Utc(self.issued_at))?;
        writeln!(f, "  from       {}", Utc(self.not_before))?;
        writeln!(f, "  until      {}", Utc(self.expires_at))?;
        write!(f, "  digest     {}", self.plan)?;
        if let Some(HeadReport { number, time, mode }) = &self.head {
            let mode = match mode {
                Mode::Act => "may be applied",
                Mode::Hold => "is on hold",
                Mode::Revoked => "is withdrawn",
            };
            write!(f, "\n  head {number}: the plan is the target's newest and {mode}, at {}", Utc(*time))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Arguments, Report, run};
    use crate::{
        cli::{ExitCode, output::Output},
        execute::offline::verify_documents,
        knowledge::{
            fixtures::{certified_head, certified_plan, head, plan, replica_keys, seal, verified_root},
            head::Mode,
            plan::PLAN_TYPE,
        },
    };
    use std::fs;

    #[test]
    fn the_account_names_signers_change_times_and_mode() {
        let (root, plan) = (verified_root().envelope().to_json(), certified_plan(&plan()));
        let head = certified_head(&head(7, Mode::Hold)).envelope().to_json();
        let verified = verify_documents(&root, &plan.envelope().to_json(), Some(&head));
        let account = Report::of(&verified.expect("the documents belong together")).to_string();
        for part in [
            "plan 37 for extract_pool",
            "3 of 4 replicas; 3 are needed",
            "of owner-0",
            "3 slots to 6 slots",
            "1970-01-01 00:31:40.000 UTC",
            "head 7: the plan is the target's newest and is on hold",
        ] {
            assert!(account.contains(part), "{part} is missing in\n{account}");
        }
    }

    #[test]
    fn exit_codes_tell_refused_from_unreadable() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("root"), verified_root().envelope().to_json()).expect("the folder is writable");
        fs::write(path("plan"), certified_plan(&plan()).envelope().to_json()).expect("it is writable");
        fs::write(path("few"), seal(PLAN_TYPE, plan().to_bytes(), &replica_keys()[..2]))
            .expect("it is writable");
        let code = |plan: &str| {
            let arguments = Arguments { root: path("root"), plan: path(plan), head: None };
            match run(&arguments, Output::default()) {
                Ok(code) => code,
                Err(failure) => failure.code(),
            }
        };
        for malformed in ["{", r#"{"payload":"*","payloadType":"x","signatures":[]}"#] {
            fs::write(path("malformed"), malformed).expect("it is writable");
            let [of_root, of_plan] = [("malformed", "plan"), ("root", "malformed")].map(|(root, plan)| {
                let arguments = Arguments { root: path(root), plan: path(plan), head: None };
                run(&arguments, Output::default()).expect_err("it is no envelope").to_string()
            });
            for told in [of_root, of_plan] {
                assert_eq!(told.matches("malformed").count(), 1, "its cause is told once: {told}");
            }
        }
        assert_eq!(code("plan"), ExitCode::Done);
        assert_eq!(code("few"), ExitCode::Refused);
        assert_eq!(code("missing"), ExitCode::Failed);
    }
}
