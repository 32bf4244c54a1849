//! Whose processes Postgres runs as: it refuses to be root's.
//!
//! Invariant: a process of root's never starts a server that is root's.

use std::{
    fs,
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
};

/// Whose process the server is. Postgres refuses to be root's.
#[derive(Clone, Copy, Debug)]
pub(super) enum ServerUser {
    /// The user of this process.
    Same { uid: u32 },
    /// This process is root's, and the server gives root up.
    Other { uid: u32, gid: u32 },
}

impl ServerUser {
    pub(super) fn choose() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        if uid != 0 {
            return Self::Same { uid };
        }
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let ids = ["postgres", "nobody"].iter().find_map(|name| passwd_ids(&users, name));
        // 65534 is nobody's number wherever there is one.
        let (uid, gid) = ids.unwrap_or((65534, 65534));
        Self::Other { uid, gid }
    }

    pub(super) const fn uid(self) -> u32 {
        match self {
            Self::Same { uid } | Self::Other { uid, .. } => uid,
        }
    }

    /// A command that runs as this user, in a folder it may enter, outside the terminal's process group: an
    /// interrupt from the keyboard must reach the server only once its clients are done.
    pub(super) fn command_as(self, program: &Path, folder: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(folder).stdin(Stdio::null()).process_group(0);
        match self {
            Self::Same { .. } => {}
            Self::Other { uid, gid } => {
                command.uid(uid).gid(gid);
            }
        }
        command
    }

    pub(super) fn may_enter(self, folder: &fs::Metadata) -> bool {
        match self {
            Self::Same { .. } => true,
            Self::Other { uid, .. } if folder.uid() == uid => folder.mode() & 0o100 != 0,
            Self::Other { gid, .. } if folder.gid() == gid => folder.mode() & 0o010 != 0,
            Self::Other { .. } => folder.mode() & 0o001 != 0,
        }
    }
}

/// User and group of a name in the text of `/etc/passwd`.
fn passwd_ids(users: &str, name: &str) -> Option<(u32, u32)> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next() == Some(name);
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        found.then_some((uid, gid))
    })
}

#[cfg(test)]
mod tests {
    use super::passwd_ids;

    #[test]
    fn users_are_found_by_their_whole_name() {
        let users =
            "root:x:0:0:root:/root:/bin/bash\nbroken\npostgresql:x:7:8::/:\npostgres:x:101:104:,,,:/v:/b\n";
        assert_eq!(passwd_ids(users, "postgres"), Some((101, 104)));
        assert_eq!(passwd_ids(users, "nobody"), None);
        assert_eq!(passwd_ids("postgres:x:many:104::/:", "postgres"), None);
    }
}
