//! Secrets that an actuator sends along: read from a file or from the environment, never written anywhere.
//!
//! It knows no request. Invariant: nothing here formats a secret, so none gets into a log, an event or an error.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
};

/// Tokens with many claims have some 4 KiB; more than that is the wrong file.
const SECRET_BYTES: u64 = 16 * 1024;

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// The whole content of a file, without the line end.
    File(PathBuf),
    /// A variable of the environment.
    Environment(String),
}

/// A secret. It can be compared and sent, and not shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(String);

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read the secret in {}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Everybody on the machine can read it.
    #[error("everybody on this machine can read the secret in {0}: chmod 600 {0}", path.display())]
    Exposed {
        /// Which.
        path: PathBuf,
    },
    /// The variable is not there.
    #[error("the environment has no variable {0}, which is to hold a secret: set it for this process")]
    NotSet(String),
    /// What is there cannot be sent.
    #[error("the secret in {place} cannot be used: {problem}")]
    Unusable {
        /// The file or the variable.
        place: String,
        /// What is wrong, without the secret itself.
        problem: &'static str,
    },
}

impl SecretSource {
    /// Reads it anew: a file may be replaced while the process runs.
    pub(super) fn read(&self) -> Result<Secret, SecretError> {
        let (place, text) = match self {
            Self::File(path) => {
                let unreadable = |source| SecretError::Unreadable { path: path.clone(), source };
                let file = File::open(path).map_err(unreadable)?;
                // Group access is how orchestrators hand a secret to a process that is not its owner.
                if file.metadata().map_err(unreadable)?.mode() & 0o007 != 0 {
                    return Err(SecretError::Exposed { path: path.clone() });
                }
                let mut text = String::new();
                file.take(SECRET_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
                (path.display().to_string(), text)
            }
            Self::Environment(name) => {
                let text = std::env::var(name).map_err(|_| SecretError::NotSet(name.clone()))?;
                (format!("the variable {name}"), text)
            }
        };
        let text = text.trim_end_matches(['\r', '\n']);
        let problem = if text.is_empty() {
            Some("it is empty")
        } else if text.len() as u64 > SECRET_BYTES {
            Some("it is longer than 16 KiB")
        } else if text.contains(char::is_control) {
            Some("it has more than one line or a control character")
        } else {
            None
        };
        match problem {
            Some(problem) => Err(SecretError::Unusable { place, problem }),
            None => Ok(Secret(text.to_owned())),
        }
    }
}

impl Secret {
    /// A secret that came over the network.
    pub(super) const fn received(text: String) -> Self {
        Self(text)
    }

    /// The secret itself, for a request.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }

    /// The text without this secret, should an engine have repeated it.
    pub(super) fn hide_in(&self, text: &str) -> String {
        text.replace(&self.0, "(secret)")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::{SecretError, SecretSource};
    use std::{fs, os::unix::fs::PermissionsExt as _};

    #[test]
    fn a_file_holds_one_line_that_not_everybody_can_read() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("token");
        let source = SecretSource::File(path.clone());
        assert!(matches!(source.read(), Err(SecretError::Unreadable { .. })));
        let rows: [(&[u8], u32, Option<&str>); 7] = [
            (b"s3cret\n", 0o600, None),
            (b"s3cret", 0o640, None),
            (b"s3cret\n", 0o644, Some("chmod 600")),
            (b"\n", 0o600, Some("it is empty")),
            (b"two\nlines\n", 0o600, Some("more than one line")),
            (&[b'x'; 16 * 1024 + 1], 0o600, Some("longer than")),
            (&[0xff, 0xfe], 0o600, Some("cannot read the secret")),
        ];
        for (content, mode, problem) in rows {
            fs::write(&path, content).expect("the folder is writable");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("the file is ours");
            match (source.read(), problem) {
                (Ok(secret), None) => assert_eq!(secret.expose(), "s3cret"),
                (Err(error), Some(problem)) => {
                    let error = error.to_string();
                    assert!(error.contains(problem) && error.contains("token"), "{error}");
                }
                (got, expected) => panic!("{got:?}, but {expected:?}"),
            }
        }
    }

    #[test]
    fn a_variable_that_is_missing_is_named() {
        let missing = SecretSource::Environment("QUORATE_NO_SUCH_VARIABLE".to_owned()).read();
        assert!(missing.expect_err("it is not set").to_string().contains("QUORATE_NO_SUCH_VARIABLE"));
        assert!(SecretSource::Environment("PATH".to_owned()).read().is_ok());
    }

    #[test]
    fn a_secret_is_neither_shown_nor_repeated() {
        let secret = super::Secret::received("s3cret".to_owned());
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert_eq!(secret.hide_in("bad token s3cret!"), "bad token (secret)!");
    }
}
