//! The agent's memory on disk: one file, replaced as a whole, with a checksum, and a lock that keeps a second
//! agent away.
//!
//! Invariant: a file that is not exactly what was written is refused. Starting with an empty memory instead
//! would forget the high-water marks, which are all that an agent has against old documents.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use crate::{
    execute::agent::{AgentState, StateError},
    service::durable::replace_file,
    types::{Committee, Digest, TargetId},
};

const STATE: &str = "state";
const LOCK: &str = "lock";

/// Why the agent cannot use its state.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// The folder cannot be used.
    #[error("cannot use the state folder {}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another agent runs on the same folder.
    #[error("another agent uses the state folder {}", .0.display())]
    Taken(PathBuf),
    /// The file is damaged.
    #[error(
        "the agent's state in {} is damaged, so it is not known which plans were applied; nothing is done",
        .0.display()
    )]
    Damaged(PathBuf),
    /// The file is whole but not this agent's.
    #[error("the agent's state in {} cannot be used: {error}", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: StateError,
    },
    /// The file cannot be written.
    #[error("cannot write the agent's state to {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The file, and the lock on its folder for as long as this value lives.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    _lock: File,
}

impl StateFile {
    /// Takes the folder (made when it is missing) and reads the state in it; a new one when there is none.
    ///
    /// # Errors
    /// [`StateFileError`] when the folder is taken or the state cannot be used.
    pub fn open(
        folder: &Path,
        committee: &Committee,
        target: &TargetId,
    ) -> Result<(Self, AgentState), StateFileError> {
        let failed = |source| StateFileError::Folder { path: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(failed)?;
        let lock = File::create(folder.join(LOCK)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(StateFileError::Taken(folder.to_owned())),
            Err(fs::TryLockError::Error(source)) => return Err(failed(source)),
        }
        let path = folder.join(STATE);
        let state = match fs::read(&path) {
            Ok(bytes) => {
                let body = checked(&bytes).ok_or_else(|| StateFileError::Damaged(path.clone()))?;
                AgentState::from_bytes(body, committee, target)
                    .map_err(|error| StateFileError::Unusable { path: path.clone(), error })?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                AgentState::new(committee.cluster(), target.clone())
            }
            Err(source) => return Err(failed(source)),
        };
        Ok((Self { path, _lock: lock }, state))
    }

    /// Writes the state; it is on disk when this returns.
    ///
    /// # Errors
    /// [`StateFileError::Write`]; the earlier state is then still there.
    pub fn save(&self, state: &AgentState) -> Result<(), StateFileError> {
        let body = state.to_bytes();
        let bytes = [Digest::of(&body).to_string().as_bytes(), b"\n", &body].concat();
        replace_file(&self.path, &bytes)
            .map_err(|source| StateFileError::Write { path: self.path.clone(), source })
    }
}

fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (sum, rest) = bytes.split_at_checked(64)?;
    let body = rest.strip_prefix(b"\n")?;
    (Digest::of(body).to_string().as_bytes() == sum).then_some(body)
}

#[cfg(test)]
mod tests {
    use super::{StateFile, StateFileError};
    use crate::{
        execute::agent::Aim,
        knowledge::{
            fixtures::{certified_head, certified_plan, committee, head, plan, target},
            head::Mode,
            plan::DesiredState,
        },
        types::TargetId,
    };
    use std::{fs, path::Path};

    fn open(folder: &Path) -> Result<(StateFile, crate::execute::agent::AgentState), StateFileError> {
        StateFile::open(folder, &committee(), &target())
    }

    #[test]
    fn what_was_saved_is_there_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let folder = folder.path().join("made/on/demand");
        let (file, mut state) = open(&folder).expect("it is new");
        state.raise_head(&certified_head(&head(7, Mode::Act)));
        state.begin(certified_plan(&plan()), DesiredState::Slots { slots: 3 }, Aim::Desired);
        file.save(&state).expect("the folder is writable");
        drop(file);
        assert_eq!(open(&folder).expect("it was saved").1, state);
    }

    #[test]
    fn a_second_agent_is_kept_away() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let first = open(folder.path()).expect("it is new");
        assert!(matches!(open(folder.path()), Err(StateFileError::Taken(_))));
        drop(first);
        assert!(open(folder.path()).is_ok());
    }

    #[test]
    fn a_damaged_state_is_refused_at_every_byte() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let (file, state) = open(folder.path()).expect("it is new");
        file.save(&state).expect("the folder is writable");
        drop(file);
        let path = folder.path().join("state");
        let whole = fs::read(&path).expect("it was saved");
        for place in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[place] ^= 1;
            fs::write(&path, &damaged).expect("the folder is writable");
            assert!(matches!(open(folder.path()), Err(StateFileError::Damaged(_))), "byte {place}");
        }
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).expect("the folder is writable");
            assert!(matches!(open(folder.path()), Err(StateFileError::Damaged(_))), "{length} bytes");
        }
    }

    #[test]
    fn the_state_of_another_target_is_refused() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let (file, state) = open(folder.path()).expect("it is new");
        file.save(&state).expect("the folder is writable");
        drop(file);
        let other = TargetId::new("other").expect("a valid name");
        let opened = StateFile::open(folder.path(), &committee(), &other);
        assert!(matches!(opened, Err(StateFileError::Unusable { .. })));
    }
}
