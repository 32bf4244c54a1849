//! The server's process and the helper that ends it.
//!
//! Invariant: no server ever runs without its helper.

use std::{
    io,
    path::Path,
    process::{Child, ChildStdin, ExitStatus, Stdio},
};

use super::{
    error::{PostgresError, io_error},
    folder::{Folder, Locks},
    programs::Binaries,
};

/// Reads until the pipe ends, then stops the server, first politely, and removes the socket's empty folder and,
/// when `$4` names one, the whole data folder. `pg_ctl` finds the server by the process id in its folder, so a
/// server that has ended is left alone. Standard output is the lock that keeps a next server from being started,
/// and stopped in place of this one, before all this is done.
const LIFELINE: &str = r#"
read -r _
"$1" stop --pgdata "$2" --mode fast --timeout 20 --silent >/dev/null ||
    "$1" stop --pgdata "$2" --mode immediate --timeout 10 --silent >/dev/null
rmdir "$3"
[ -z "$4" ] || rm -rf "$4"
"#;

/// What becomes of the data when the server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lifetime {
    Kept,
    /// It goes, so nothing is lost by not flushing it to disk.
    Temporary,
}

/// The server and the helper that ends it. Dropping this closes the pipe, and so ends both.
#[derive(Debug)]
pub(super) struct Processes {
    lifeline: ChildStdin,
    helper: Child,
    server: Child,
}

impl Processes {
    pub(super) fn spawn(
        folder: &Folder,
        binaries: &Binaries,
        lifetime: Lifetime,
        locks: &Locks,
    ) -> Result<Self, PostgresError> {
        let removed = match lifetime {
            Lifetime::Kept => Path::new(""),
            Lifetime::Temporary => &folder.data_dir,
        };
        // The helper comes first, so that no server is ever without one. It is the server's user, because
        // `pg_ctl` refuses root as the server does.
        let mut helper = folder
            .user
            .command_as(Path::new("/bin/sh"), &folder.data_dir)
            .args(["-c", LIFELINE, "quorate-postgres-lifeline"])
            .args([&binaries.program("pg_ctl"), &folder.cluster, &folder.socket])
            .arg(removed)
            .stdin(Stdio::piped())
            .stdout(locks.for_worker()?)
            .stderr(Stdio::null())
            .spawn()
            .map_err(io_error("run", Path::new("/bin/sh")))?;
        let lifeline = helper.stdin.take().expect("the helper was given a pipe");
        let server = folder.server_command(binaries, lifetime)?.spawn();
        let server = server.map_err(io_error("run", &binaries.program("postgres")))?;
        Ok(Self { lifeline, helper, server })
    }

    pub(super) fn server_status(&mut self) -> Option<ExitStatus> {
        self.server.try_wait().ok().flatten()
    }

    pub(super) fn stop(self) -> io::Result<()> {
        let Self { lifeline, mut helper, mut server } = self;
        drop(lifeline);
        helper.wait()?;
        server.wait()?;
        Ok(())
    }
}
