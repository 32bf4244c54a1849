//! A Postgres of one replica's own, to be stopped, killed, paused, filled, saved and put back.
//!
//! It knows nothing of replicas. Invariant: what it kills or pauses are the processes of its own server, found from
//! its own `postmaster.pid`, and what it mounts it unmounts.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use quorate::service::postgres::PrivatePostgres;
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _, postgres::PgRow};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A room of this size holds an empty database and some MB more.
const SMALL_ROOM: &str = "size=40m";

/// A server over a folder of its own. Its URLs stay the same however often it is started.
pub(crate) struct Database {
    runtime: Runtime,
    running: Option<PrivatePostgres>,
    urls: String,
    room: Option<PathBuf>,
    folder: TempDir,
}

impl Database {
    /// A new server in the folder for tests.
    pub(crate) fn start(folder: TempDir) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let mut database = Self {
            runtime: runtime.expect("a runtime can be made"),
            running: None,
            urls: String::new(),
            room: None,
            folder,
        };
        database.start_again();
        database
    }

    /// The URL of one of its databases.
    pub(crate) fn url(&self, name: &str) -> String {
        self.urls.replace("NAME", name)
    }

    /// Starts the server after it was stopped or killed.
    pub(crate) fn start_again(&mut self) {
        let started = self.runtime.block_on(PrivatePostgres::start(&self.folder.path().join("server")));
        let server = started.expect("the server starts");
        self.urls = server.url("NAME");
        self.running = Some(server);
    }

    /// Stops the server in order.
    pub(crate) fn stop(&mut self) {
        if let Some(server) = self.running.take() {
            self.runtime.block_on(server.stop()).expect("the server ends");
        }
    }

    /// Ends all of the server's processes as a failing machine would.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.stop();
    }

    /// Stops all of the server's processes where they are: they neither answer nor close anything.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets them go on.
    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let text = fs::read_to_string(self.cluster().join("postmaster.pid")).expect("the server runs");
        let postmaster: i32 = text.lines().next().and_then(|line| line.parse().ok()).expect("its process");
        // The server's own process first, so that it starts no other in the meantime.
        for pid in [postmaster].into_iter().chain(children(postmaster)).filter_map(Pid::from_raw) {
            // A session may have ended by itself.
            let _ = kill_process(pid, signal);
        }
    }

    /// Copies the stopped server's data to a backup, or back.
    pub(crate) fn copy(&mut self, way: Way) {
        self.stop();
        let (data, backup) = (self.cluster(), self.folder.path().join("backup"));
        let (from, to) = match way {
            Way::Save => (data, backup),
            Way::Restore => (backup, data),
        };
        if to.exists() {
            fs::remove_dir_all(&to).expect("the folder is ours");
        }
        let copied = Command::new("cp").arg("-a").args([&from, &to]).status().expect("cp starts");
        assert!(copied.success());
        self.start_again();
    }

    fn cluster(&self) -> PathBuf {
        self.folder.path().join("server/cluster")
    }

    /// Creates a database with nothing in it; one of that name is dropped first, whoever uses it.
    pub(crate) fn create(&self, name: &str) -> String {
        self.execute("postgres", &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
        self.execute("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'"));
        self.url(name)
    }

    /// Creates a database on a small file system of its own; `None` where this process may not mount one.
    pub(crate) fn create_in_small_room(&mut self, name: &str) -> Option<String> {
        let room = self.folder.path().join("room");
        fs::create_dir(&room).expect("the folder is ours");
        let options = ["-t", "tmpfs", "-o", SMALL_ROOM, "tmpfs"];
        let mounted = Command::new("mount").args(options).arg(&room).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            return None;
        }
        self.room = Some(room.clone());
        let space = room.join("space");
        fs::create_dir(&space).expect("the room is ours");
        let chown = Command::new("chown").arg("--reference").args([&self.cluster(), &space]).status();
        assert!(chown.is_ok_and(|status| status.success()));
        let location = space.display();
        self.execute("postgres", &format!("CREATE TABLESPACE small LOCATION '{location}'"));
        let create = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' TABLESPACE small");
        self.execute("postgres", &create);
        Some(self.url(name))
    }

    /// Leaves no byte free in the small room.
    pub(crate) fn fill_room(&self) {
        let mut file = fs::File::create(self.ballast()).expect("there is room for a name");
        let piece = [0x55; 4096];
        while file.write_all(&piece).is_ok() {}
    }

    /// Makes room again.
    pub(crate) fn empty_room(&self) {
        fs::remove_file(self.ballast()).expect("the room was filled");
    }

    fn ballast(&self) -> PathBuf {
        self.room.as_ref().expect("it was mounted").join("ballast")
    }

    /// Runs statements.
    pub(crate) fn execute(&self, name: &str, statements: &str) {
        let statements = AssertSqlSafe(statements.to_owned());
        self.runtime.block_on(async {
            let mut connection = PgConnection::connect(&self.url(name)).await.expect("the server answers");
            sqlx::raw_sql(statements).execute(&mut connection).await.expect("the statements are right");
        });
    }

    /// The first column of a query's rows as text.
    pub(crate) fn column(&self, name: &str, query: &str) -> Vec<String> {
        let query = AssertSqlSafe(query.to_owned());
        self.runtime.block_on(async {
            let mut connection = PgConnection::connect(&self.url(name)).await.expect("the server answers");
            let rows: Vec<PgRow> =
                sqlx::query(query).fetch_all(&mut connection).await.expect("the query is right");
            rows.iter().map(|row| row.get::<String, _>(0)).collect()
        })
    }

    /// Locks a table against all others for as long as the answer lives.
    pub(crate) fn lock(&self, name: &str, table: &str) -> PgConnection {
        let statement = AssertSqlSafe(format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"));
        self.runtime.block_on(async {
            let mut connection = PgConnection::connect(&self.url(name)).await.expect("the server answers");
            sqlx::raw_sql(statement).execute(&mut connection).await.expect("the table is free soon");
            connection
        })
    }

    /// Ends the session, and with it its lock.
    pub(crate) fn unlock(&self, session: PgConnection) {
        self.runtime.block_on(session.close()).expect("the server answers");
    }
}

/// In which direction data is copied.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Save,
    Restore,
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some(server) = self.running.take() {
            // Processes that stand still do not end.
            self.signal(Signal::CONT);
            let _ = self.runtime.block_on(server.stop());
        }
        if let Some(room) = &self.room {
            let _ = Command::new("umount").arg(room).status();
        }
    }
}

fn children(parent: i32) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The name stands in parentheses and may hold any character; after it come the state and the parent.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(1)?.parse().ok()
}
