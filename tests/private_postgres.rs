//! The private Postgres as processes: what it leaves behind, what a second start finds, what is refused.
#![cfg(feature = "service")]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use quorate::service::postgres::{PostgresError, PrivatePostgres};
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;

/// Set for the process that [`holds_a_server_until_it_is_killed`] runs in.
const DATA_DIR_VARIABLE: &str = "QUORATE_TEST_DATA_DIR";

/// A folder that any user may enter: the server is not root's.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    folder
}

async fn execute(server: &PrivatePostgres, statement: &'static str) {
    let mut connection = PgConnection::connect(&server.url("knowledge")).await.expect("the server answers");
    sqlx::raw_sql(statement).execute(&mut connection).await.expect("the statement is right");
}

async fn numbers(server: &PrivatePostgres) -> Vec<i32> {
    let mut connection = PgConnection::connect(&server.url("knowledge")).await.expect("the server answers");
    sqlx::query_scalar("SELECT n FROM numbers ORDER BY n")
        .fetch_all(&mut connection)
        .await
        .expect("it is there")
}

/// Where the server's socket stands, by its URL.
fn socket_folder(server: &PrivatePostgres) -> PathBuf {
    let url = server.url("postgres");
    let host = url.split("host=").nth(1).and_then(|rest| rest.split('&').next()).expect("it has a host");
    PathBuf::from(host.replace("%2F", "/").replace("%2D", "-").replace("%2E", "."))
}

/// The processes that name this folder on their command line or work in it, by number.
fn processes_of(folder: &Path) -> Vec<(u32, String)> {
    let entries = fs::read_dir("/proc").expect("processes are listed").flatten();
    let mut found = Vec::new();
    for entry in entries {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let works_there = fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
        if pid != std::process::id() && (works_there || line.contains(&*folder.to_string_lossy())) {
            found.push((pid, line));
        }
    }
    found
}

/// Waits until no process of the folder is left.
fn assert_all_end(folder: &Path) {
    for _ in 0..3_000 {
        if processes_of(folder).is_empty() {
            return;
        }
        // Between two looks: they are nobody's children here who could be waited for.
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("still running: {:?}", processes_of(folder));
}

#[tokio::test]
async fn a_second_start_finds_what_the_first_one_kept_and_no_process_is_left_between() {
    let folder = folder();
    let data_dir = folder.path().join("not/yet/there");
    let server = PrivatePostgres::start(&data_dir).await.expect("it starts");
    for _ in 0..2 {
        server.ensure_database("knowledge").await.expect("it is made once");
    }
    execute(&server, "CREATE TABLE numbers (n integer); INSERT INTO numbers VALUES (7)").await;
    server.stop().await.expect("it stops");
    assert_eq!(processes_of(folder.path()), []);
    let server = PrivatePostgres::start(&data_dir).await.expect("it starts again");
    assert_eq!(numbers(&server).await, [7]);
    server.stop().await.expect("it stops");
    assert_eq!(processes_of(folder.path()), []);
}

#[tokio::test]
async fn a_dropped_server_ends_and_a_temporary_one_takes_its_folder_along() {
    let folder = folder();
    drop(PrivatePostgres::start(folder.path()).await.expect("it starts"));
    assert_all_end(folder.path());
    let temporary = PrivatePostgres::temporary().await.expect("it starts");
    let socket = socket_folder(&temporary);
    assert!(socket.join(".s.PGSQL.5432").exists(), "{socket:?}");
    temporary.stop().await.expect("it stops");
    assert!(!socket.parent().expect("it stood in a folder").exists());
}

#[tokio::test]
async fn a_folder_serves_one_server_at_a_time() {
    let folder = folder();
    let server = PrivatePostgres::start(folder.path()).await.expect("it starts");
    let refused = PrivatePostgres::start(folder.path()).await.expect_err("it is in use");
    assert!(matches!(refused, PostgresError::InUse(_)), "{refused:?}");
    server.stop().await.expect("it stops");
}

#[tokio::test]
async fn a_data_folder_with_a_long_path_has_its_socket_elsewhere() {
    let folder = folder();
    let data_dir = folder.path().join("deep".repeat(25)).join("deeper".repeat(25));
    let server = PrivatePostgres::start(&data_dir).await.expect("it starts");
    server.ensure_database("knowledge").await.expect("the server answers");
    let socket = socket_folder(&server);
    assert!(socket.join(".s.PGSQL.5432").exists(), "{socket:?}");
    server.stop().await.expect("it stops");
    assert!(!socket.exists());
}

#[tokio::test]
async fn names_that_would_need_quoting_are_refused() {
    let server = PrivatePostgres::temporary().await.expect("it starts");
    for name in ["", "1st", "a b", "a\"b", "A", &"a".repeat(64)] {
        assert!(server.ensure_database(name).await.is_err(), "{name:?}");
    }
    server.ensure_database(&"a".repeat(63)).await.expect("the longest name");
    server.stop().await.expect("it stops");
}

/// Not a test of its own: the process that the next two kill.
#[tokio::test]
#[ignore = "it never ends by itself"]
async fn holds_a_server_until_it_is_killed() {
    let data_dir = std::env::var_os(DATA_DIR_VARIABLE).expect("the caller names a folder");
    let server = PrivatePostgres::start(Path::new(&data_dir)).await.expect("it starts");
    server.ensure_database("knowledge").await.expect("the server answers");
    execute(&server, "CREATE TABLE numbers (n integer); INSERT INTO numbers VALUES (7)").await;
    println!("\nready");
    std::future::pending::<()>().await;
}

fn holder(data_dir: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().expect("the test knows its file"))
        .args(["--exact", "holds_a_server_until_it_is_killed", "--ignored", "--nocapture"])
        .env(DATA_DIR_VARIABLE, data_dir)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the test can run itself");
    let output = BufReader::new(child.stdout.take().expect("it was given a pipe"));
    let ready = output.lines().any(|line| line.is_ok_and(|line| line == "ready"));
    assert!(ready, "the server did not start");
    child
}

fn kill(pid: u32) {
    let status = Command::new("kill").args(["-KILL", &pid.to_string()]).status().expect("kill runs");
    assert!(status.success());
}

#[tokio::test]
async fn the_server_ends_with_a_process_that_is_killed() {
    let folder = folder();
    let mut holder = holder(folder.path());
    assert!(!processes_of(folder.path()).is_empty());
    holder.kill().expect("it is ours");
    holder.wait().expect("it is ours");
    assert_all_end(folder.path());
    let server = PrivatePostgres::start(folder.path()).await.expect("it starts again");
    assert_eq!(numbers(&server).await, [7]);
    server.stop().await.expect("it stops");
}

#[tokio::test]
async fn a_server_that_outlived_its_process_is_ended_by_the_next_start() {
    let folder = folder();
    let mut holder = holder(folder.path());
    let processes = processes_of(folder.path());
    let helper = processes.iter().find(|(_, line)| line.contains("quorate-postgres-lifeline"));
    kill(helper.expect("the helper is running").0);
    holder.kill().expect("it is ours");
    holder.wait().expect("it is ours");
    let orphans = processes_of(folder.path());
    assert!(!orphans.is_empty(), "nothing outlived it");
    let server = PrivatePostgres::start(folder.path()).await.expect("it starts again");
    assert_eq!(numbers(&server).await, [7]);
    let still: Vec<_> = processes_of(folder.path()).into_iter().filter(|now| orphans.contains(now)).collect();
    assert_eq!(still, []);
    server.stop().await.expect("it stops");
    assert_eq!(processes_of(folder.path()), []);
}

#[tokio::test]
async fn a_process_number_that_now_belongs_to_something_else_does_not_stop_a_start() {
    let folder = folder();
    let server = PrivatePostgres::start(folder.path()).await.expect("it starts");
    server.stop().await.expect("it stops");
    let stranger = std::process::id();
    fs::write(folder.path().join("cluster/postmaster.pid"), format!("{stranger}\n")).expect("it is free");
    let server = PrivatePostgres::start(folder.path()).await.expect("it starts again");
    server.stop().await.expect("it stops");
}

#[tokio::test]
async fn a_folder_that_shuts_the_servers_user_out_is_named() {
    let folder = folder();
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).expect("it is free");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("it is ours");
    match PrivatePostgres::start(&closed.join("data")).await {
        // Only root's server has another user.
        Ok(server) => server.stop().await.expect("it stops"),
        Err(refused) => {
            let text = refused.to_string();
            assert!(matches!(refused, PostgresError::Unreachable { .. }), "{refused:?}");
            assert!(text.contains(&*closed.to_string_lossy()) && text.contains("chmod o+x"), "{text}");
        }
    }
}
