//! The file of tokens: JSON, readable by its owner alone, replaced as a whole.
//!
//! `quorate token` writes it and a server reads it. Invariants: it holds no secret; a change by one command is
//! never lost to another's.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::list::{ListedToken, MAX_TOKENS, TokenName, Tokens};
use crate::service::{durable::replace_private_file, reload};

/// The version of the file's form.
const VERSION: u32 = 1;

/// Why the file of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ListFileError {
    /// There is none.
    #[error("there is no file of tokens {}; `quorate token create` makes it", .0.display())]
    Missing(PathBuf),
    /// It cannot be read or written.
    #[error("cannot use the file of tokens {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// Others than its owner may read it.
    #[error("others can read the file of tokens {0}: chmod 600 {0}", path.display())]
    Readable {
        /// Which.
        path: PathBuf,
    },
    /// It belongs to somebody else, and replacing it would take it away from the server.
    #[error("the file of tokens {} belongs to another user: run this as that one", .0.display())]
    OtherOwner(PathBuf),
    /// It is no list of tokens.
    #[error("{}:{line}:{column}: no list of tokens: {why}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What is wrong.
        why: String,
    },
    /// Two tokens have one name, or one text.
    #[error("{}: two tokens are called {name}, or are the same", path.display())]
    Twice {
        /// The file.
        path: PathBuf,
        /// The name.
        name: TokenName,
    },
    /// There are too many.
    #[error("{} holds {MAX_TOKENS} tokens, and more are not allowed: revoke some", .0.display())]
    TooMany(PathBuf),
    /// No token has this name.
    #[error("{} has no token called {name}", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The name.
        name: TokenName,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    version: u32,
    tokens: Vec<ListedToken>,
}

/// Reads the file.
///
/// # Errors
/// [`ListFileError`] when it is missing, malformed or readable by others.
pub fn read_tokens(path: &Path) -> Result<Tokens, ListFileError> {
    let failed = |error: io::Error| {
        if error.kind() == io::ErrorKind::NotFound {
            ListFileError::Missing(path.to_owned())
        } else {
            ListFileError::Io { path: path.to_owned(), error }
        }
    };
    if reload::others_can_read(path).map_err(failed)? {
        return Err(ListFileError::Readable { path: path.to_owned() });
    }
    parse(path, &reload::read(path).map_err(failed)?)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Tokens, ListFileError> {
    let malformed = |line, column, why| ListFileError::Malformed { path: path.to_owned(), line, column, why };
    let text: Text = serde_json::from_slice(bytes)
        .map_err(|error| malformed(error.line(), error.column(), error.to_string()))?;
    if text.version != VERSION {
        let why = format!("its version is {}, and this program knows {VERSION}", text.version);
        return Err(malformed(1, 1, why));
    }
    if text.tokens.len() > MAX_TOKENS {
        return Err(ListFileError::TooMany(path.to_owned()));
    }
    for (place, token) in text.tokens.iter().enumerate() {
        if is_listed(&text.tokens[..place], token) {
            return Err(ListFileError::Twice { path: path.to_owned(), name: token.name.clone() });
        }
    }
    Ok(Tokens(text.tokens))
}

fn is_listed(tokens: &[ListedToken], token: &ListedToken) -> bool {
    tokens.iter().any(|other| other.name == token.name || other.sha256 == token.sha256)
}

/// Lists one more token; makes the file when there is none.
///
/// # Errors
/// [`ListFileError`]; the file is then as it was.
pub fn add_token(path: &Path, token: ListedToken) -> Result<(), ListFileError> {
    change(path, |tokens| {
        if is_listed(tokens, &token) {
            return Err(ListFileError::Twice { path: path.to_owned(), name: token.name });
        }
        if tokens.len() >= MAX_TOKENS {
            return Err(ListFileError::TooMany(path.to_owned()));
        }
        tokens.push(token);
        Ok(())
    })
}

/// Takes a token off the list.
///
/// # Errors
/// [`ListFileError`]; the file is then as it was.
pub fn revoke_token(path: &Path, name: &TokenName) -> Result<(), ListFileError> {
    change(path, |tokens| {
        let before = tokens.len();
        tokens.retain(|token| token.name != *name);
        if tokens.len() == before {
            return Err(ListFileError::Unknown { path: path.to_owned(), name: name.clone() });
        }
        Ok(())
    })
}

fn change(
    path: &Path,
    change: impl FnOnce(&mut Vec<ListedToken>) -> Result<(), ListFileError>,
) -> Result<(), ListFileError> {
    let failed = |error| ListFileError::Io { path: path.to_owned(), error };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The folder is locked and not the file, which is another one afterwards. Dropping it unlocks.
    let lock = File::open(folder).map_err(failed)?;
    lock.lock().map_err(failed)?;
    let mut tokens = match read_tokens(path) {
        Ok(Tokens(tokens)) => tokens,
        Err(ListFileError::Missing(_)) => Vec::new(),
        Err(error) => return Err(error),
    };
    if fs::metadata(path).is_ok_and(|file| file.uid() != rustix::process::geteuid().as_raw()) {
        return Err(ListFileError::OtherOwner(path.to_owned()));
    }
    change(&mut tokens)?;
    let text = serde_json::to_vec_pretty(&Text { version: VERSION, tokens });
    let text = text.map_err(|error| failed(io::Error::other(error)))?;
    replace_private_file(path, &text).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

    use super::{ListFileError, add_token, read_tokens, revoke_token};
    use crate::{
        service::tokens::{ListedToken, Scope, Token},
        types::UnixMillis,
    };

    fn listed(name: &str, token: &Token) -> ListedToken {
        ListedToken {
            name: name.parse().expect("a valid name"),
            scopes: [Scope::Ingest].into(),
            sha256: token.digest(),
            created_ms: UnixMillis::new(7),
            expires_ms: None,
        }
    }

    fn put(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).expect("the folder is ours");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    }

    #[test]
    fn the_file_holds_hashes_and_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("tokens.json");
        assert!(matches!(read_tokens(&path), Err(ListFileError::Missing(_))));
        let (one, two) = (Token::generate().expect("random"), Token::generate().expect("random"));
        add_token(&path, listed("one", &one)).expect("it is new");
        add_token(&path, listed("two", &two)).expect("it is new");
        for again in [listed("one", &Token::generate().expect("random")), listed("three", &one)] {
            assert!(matches!(add_token(&path, again), Err(ListFileError::Twice { .. })));
        }
        let text = fs::read_to_string(&path).expect("it is there");
        assert!(!text.contains(one.reveal()) && text.contains(&one.digest().to_string()), "{text}");
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
        revoke_token(&path, &"one".parse().expect("a name")).expect("it is listed");
        assert_eq!(read_tokens(&path).expect("it is right").listed(), [listed("two", &two)]);
        let again = revoke_token(&path, &"one".parse().expect("a name"));
        assert!(matches!(again, Err(ListFileError::Unknown { .. })));
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing lies beside it");
    }

    #[test]
    fn what_is_no_list_of_tokens_is_refused_with_its_place_and_never_replaced() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("tokens.json");
        let token = |name: &str, sha256: &str| {
            format!("{{\"name\":\"{name}\",\"scopes\":[\"read\"],\"sha256\":\"{sha256}\",\"created_ms\":1}}")
        };
        let list = |tokens: &str| format!("{{\"version\":1,\n\"tokens\":[{tokens}]}}");
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        let rows = [
            (String::new(), 0o600, ":1:0: no list of tokens: "),
            (list("{}"), 0o600, ":2:12: no list of tokens: missing field `name`"),
            (list(&token("x y", &a)), 0o600, "is no name"),
            (list(&token("x", "abc")), 0o600, ":2:"),
            (list(&token("x", &a).replace("read", "raed")), 0o600, "unknown variant `raed`, expected one of"),
            (list(&token("x", &a)).replace("version\":1", "version\":2"), 0o600, "its version is 2"),
            (list(&format!("{},{}", token("x", &a), token("x", &b))), 0o600, "two tokens are called x"),
            (list(&format!("{},{}", token("x", &a), token("y", &a))), 0o600, "two tokens are called y"),
            (list(&token("x", &a)), 0o644, "chmod 600"),
        ];
        for (text, mode, words) in rows {
            put(&path, &text, mode);
            let error = read_tokens(&path).expect_err(&text).to_string();
            assert!(error.contains(words), "{text}: {error}");
            let new = listed("new", &Token::generate().expect("random"));
            add_token(&path, new).expect_err(&text);
            assert_eq!(fs::read_to_string(&path).expect("it is there"), text);
        }
        put(&path, &list(&token("x", &a)), 0o600);
        assert_eq!(read_tokens(&path).expect("it is right").listed().len(), 1);
    }
}
