//! What can be wrong with a database, by the names that status, health and metrics show.
//!
//! It says nothing of blocks: how far the store is behind is counted elsewhere. Invariant: every error of the
//! store has exactly one of these names, and `docs/operations.md` says what to do for each.

/// What is wrong with a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StoreTrouble {
    /// Nobody listens, or the connection broke.
    Unreachable,
    /// It is there and does not answer in time.
    Timeout,
    /// Somebody else holds a lock that a block needs.
    Locked,
    /// It has no room on its disk.
    DiskFull,
    /// It has no connection or memory left.
    Overloaded,
    /// It is starting, stopping, or a standby.
    NotWriting,
    /// It refuses the URL, the user, the password or a permission.
    Refused,
    /// It belongs to another replica, another cluster or a later epoch.
    RefusedIdentity,
    /// Its tables are not those of this program.
    RefusedTables,
    /// Another process writes to it.
    InUse,
    /// It followed another log.
    Diverged,
    /// It answered what this program does not expect.
    Faulty,
}

impl StoreTrouble {
    /// All of them, in order.
    pub const ALL: [Self; 12] = [
        Self::Unreachable,
        Self::Timeout,
        Self::Locked,
        Self::DiskFull,
        Self::Overloaded,
        Self::NotWriting,
        Self::Refused,
        Self::RefusedIdentity,
        Self::RefusedTables,
        Self::InUse,
        Self::Diverged,
        Self::Faulty,
    ];

    /// Its name in JSON and as a label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Locked => "locked",
            Self::DiskFull => "disk_full",
            Self::Overloaded => "overloaded",
            Self::NotWriting => "not_writing",
            Self::Refused => "refused",
            Self::RefusedIdentity => "refused_identity",
            Self::RefusedTables => "refused_tables",
            Self::InUse => "in_use",
            Self::Diverged => "diverged",
            Self::Faulty => "faulty",
        }
    }

    /// Whether it may be over without anybody's doing.
    #[must_use]
    pub const fn passes(self) -> bool {
        match self {
            Self::Unreachable
            | Self::Timeout
            | Self::Locked
            | Self::DiskFull
            | Self::Overloaded
            | Self::NotWriting
            | Self::InUse => true,
            Self::Refused | Self::RefusedIdentity | Self::RefusedTables | Self::Diverged | Self::Faulty => {
                false
            }
        }
    }

    pub(super) fn of(error: &sqlx::Error) -> Self {
        if let Some(refusal) = error.as_database_error() {
            return Self::of_code(&refusal.code().unwrap_or_default());
        }
        if is_connection_failure(error) { Self::Unreachable } else { Self::Faulty }
    }

    /// By SQLSTATE: its class, or the whole code where that says more.
    fn of_code(code: &str) -> Self {
        match code {
            "55P03" => Self::Locked,
            "53100" => Self::DiskFull,
            "57014" => Self::Timeout,
            "57P01" | "57P02" => Self::Unreachable,
            "57P03" | "57P05" | "25006" => Self::NotWriting,
            "3D000" | "42501" => Self::Refused,
            _ => match code.get(..2).unwrap_or_default() {
                "08" => Self::Unreachable,
                // A conflict with another transaction.
                "40" => Self::Locked,
                "53" => Self::Overloaded,
                "57" => Self::NotWriting,
                // The server's own input or output failed.
                "58" => Self::NotWriting,
                "28" => Self::Refused,
                _ => Self::Faulty,
            },
        }
    }
}

fn is_connection_failure(error: &sqlx::Error) -> bool {
    matches!(
        error,
        sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
    )
}

#[cfg(test)]
mod tests {
    use super::StoreTrouble;

    #[test]
    fn a_servers_refusal_is_named_by_its_code() {
        let cases = [
            ("55P03", StoreTrouble::Locked),
            ("40P01", StoreTrouble::Locked),
            ("53100", StoreTrouble::DiskFull),
            ("53300", StoreTrouble::Overloaded),
            ("57014", StoreTrouble::Timeout),
            ("57P01", StoreTrouble::Unreachable),
            ("57P03", StoreTrouble::NotWriting),
            ("58030", StoreTrouble::NotWriting),
            ("28P01", StoreTrouble::Refused),
            ("3D000", StoreTrouble::Refused),
            ("42P01", StoreTrouble::Faulty),
            ("", StoreTrouble::Faulty),
        ];
        for (code, expected) in cases {
            assert_eq!(StoreTrouble::of_code(code), expected, "{code}");
        }
    }
}
