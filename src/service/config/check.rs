//! Checks a file of either kind. Which kind it is follows from its keys; nothing that the file names is opened.
//! Invariant: a file is only correct as the kind that it is used as.

use std::path::Path;

use super::{error::ConfigError, policy_file::PolicyFile, replica::ReplicaConfig};

/// A file that is correct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// A policy file.
    Policy(PolicyFile),
    /// A replica file.
    Replica,
}

/// Checks a policy file or a replica file.
///
/// # Errors
/// [`ConfigError`] says what is wrong, and where.
pub fn check_file(path: &Path) -> Result<Checked, ConfigError> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::of_file(&file, format!("cannot be read: {error}")))?;
    check_text(&file, &text)
}

fn check_text(file: &str, text: &str) -> Result<Checked, ConfigError> {
    // What is no TOML at all is either kind's to refuse.
    let table: toml::Table = toml::from_str(text).unwrap_or_default();
    let is_policy = ["cycle", "target", "policy"].iter().any(|key| table.contains_key(*key));
    let looks_like_a_replica = ReplicaConfig::KEYS.iter().any(|key| table.contains_key(*key));
    if looks_like_a_replica && !is_policy {
        ReplicaConfig::check_text(file, text).map(|()| Checked::Replica)
    } else {
        PolicyFile::parse(file, text).map(Checked::Policy)
    }
}

#[cfg(test)]
mod tests {
    use super::{Checked, check_text};
    use crate::service::config::{POLICY_EXAMPLE, REPLICA_EXAMPLE};

    #[test]
    fn the_kind_of_a_file_follows_from_its_keys() {
        assert_eq!(check_text("replica.toml", REPLICA_EXAMPLE), Ok(Checked::Replica));
        assert!(matches!(check_text("policy.toml", POLICY_EXAMPLE), Ok(Checked::Policy(_))));
        let error = check_text("f", "data_dir = \"a\"\npeer = []").expect_err("a misspelt key");
        assert_eq!(error.to_string(), "f:2:1: `peer` is not known here; did you mean `peers`?");
        let error = check_text("f", "[[polcy]]").expect_err("a misspelt key");
        assert_eq!(error.message(), "`polcy` is not known here; did you mean `policy`?");
        assert!(check_text("f", "data_dir = ").is_err());
    }
}
