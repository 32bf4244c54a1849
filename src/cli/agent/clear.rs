//! `quorate agent clear`: lets an agent go on that had stopped because the quorum contradicted itself.
//!
//! It reads no replica and touches no target. Invariant: it takes back only the stop that the caller names, and
//! keeps every high-water mark and both documents.

use serde::Serialize;
use std::{fmt, path::PathBuf};

use super::{read_root, run::target, state_failure};
use crate::{
    cli::{ExitCode, Failure, output::Output},
    service::agent::StateFile,
    types::{Digest, TargetId},
};

const EXAMPLES: &str = "\
Examples:
  quorate agent clear --root root.json --target extract_pool --state-dir state \\
      --contradiction 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

An agent stops with code 4 when a quorum has signed two things under one number: more replicas have signed
falsely than the committee bears. It keeps both documents in its state folder. Before you clear that: show them
to the owners, find the replicas whose signatures stand under both, and compare the target with what both say.

The agent's marks stay, so it goes on only with a head or a plan past the number of the contradiction.

Exit codes: 0 cleared, 1 failed, 2 usage, 4 refused: there is no such contradiction.";

/// Let an agent go on that had stopped over a contradiction
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The pinned root, as the owners handed it over
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// The target's name, as in the policy file
    #[arg(long, value_name = "NAME", value_parser = target)]
    target: TargetId,
    /// Where the agent remembers what it has done
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    /// The contradiction that you have looked into, as the agent names it
    #[arg(long, value_name = "DIGEST")]
    contradiction: Digest,
}

/// Clears it.
///
/// # Errors
/// [`Failure`] when the state cannot be used, or no such contradiction is in it.
pub(super) fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Failure> {
    let Arguments { root, target, state_dir, contradiction } = arguments;
    let root = read_root(root)?;
    let (file, mut state) = StateFile::open(state_dir, root.committee(), target).map_err(state_failure)?;
    let kept = state.equivocation().map(crate::execute::agent::Equivocation::digest);
    if !state.clear(*contradiction) {
        let found =
            kept.map_or_else(|| "it has not stopped".to_owned(), |kept| format!("it stopped over {kept}"));
        return Err(Failure::refused(anyhow::anyhow!(
            "the agent in {} has not stopped over contradiction {contradiction}: {found}",
            state_dir.display()
        )));
    }
    file.save(&state).map_err(state_failure)?;
    output.event(&Cleared { contradiction: *contradiction, state_dir: state_dir.clone() })?;
    Ok(ExitCode::Done)
}

#[derive(Debug, Serialize)]
struct Cleared {
    contradiction: Digest,
    state_dir: PathBuf,
}

impl fmt::Display for Cleared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { contradiction, state_dir } = self;
        write!(f, "cleared {contradiction}; both documents stay in {}", state_dir.display())
    }
}

#[cfg(test)]
mod tests {
    use super::{Arguments, run};
    use crate::{
        cli::{ExitCode, output::Output},
        execute::agent::Equivocation,
        knowledge::{
            fixtures::{certified_head, committee, head, target, verified_root},
            head::Mode,
        },
        service::agent::StateFile,
        types::Digest,
    };

    #[test]
    fn only_the_contradiction_that_is_named_is_cleared() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let (root, state_dir) = (folder.path().join("root.json"), folder.path().join("state"));
        std::fs::write(&root, verified_root().envelope().to_json()).expect("the folder is writable");
        let proof = Equivocation {
            kept: certified_head(&head(7, Mode::Act)).envelope().clone(),
            other: certified_head(&head(7, Mode::Hold)).envelope().clone(),
        };
        let open = || StateFile::open(&state_dir, &committee(), &target()).expect("it is ours");
        let code = |contradiction| {
            let (root, state_dir) = (root.clone(), state_dir.clone());
            match run(&Arguments { root, target: target(), state_dir, contradiction }, Output::default()) {
                Ok(code) => code,
                Err(failure) => failure.code(),
            }
        };
        assert_eq!(code(proof.digest()), ExitCode::Refused, "it has not stopped");
        {
            let (file, mut state) = open();
            state.raise_head(&certified_head(&head(7, Mode::Act)));
            state.stop(proof.clone());
            file.save(&state).expect("the folder is writable");
        }
        assert_eq!(code(Digest::ZERO), ExitCode::Refused);
        assert_eq!(open().1.equivocation(), Some(&proof));
        assert_eq!(code(proof.digest()), ExitCode::Done);
        let state = open().1;
        assert_eq!(state.equivocation(), None);
        assert_eq!(state.head().map(|mark| mark.number.number()), Some(7), "the marks stay");
    }
}
