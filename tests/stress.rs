//! A replica whose database is stopped, killed, hung, locked, full, restored, emptied or not its own, in a cluster
//! that works on.
//!
//! One replica of a real cluster gets a real Postgres of its own, to which everything is done. At the end of each test
//! its rows are compared with what its journal says they must be. Invariant: every wait is for a condition, none is
//! for a time.
#![cfg(feature = "service")]

#[path = "support/database.rs"]
mod database;
#[expect(dead_code, reason = "each file of tests uses its part of the harness")]
mod harness;

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use database::{Database, Way};
use harness::cluster::{Cluster, Options, folder, quorate};
use quorate::{
    consensus::{
        Config, Recovered, ViewTimes,
        journal::{SALT_BYTES, Salt},
        task,
    },
    cycle::{Cycle, CycleConfig, Hold, Output as Step},
    knowledge::change::Change,
    service::{
        config::{ReplicaConfig, ReplicaFlags},
        lifecycle::END_WITH_PARENT,
        replica::Membership,
        status::{NotReadyReason, StatusSnapshot},
    },
};
use serde_json::Value;

/// The replica whose database it is about.
const PLACE: usize = 3;

/// How many blocks may be missing before it signs no plans, in these tests: some seconds of windows.
const LAG_MAX: u64 = 20;

/// A backlog that breaks the example policy's threshold of 20.
const BACKLOG: i64 = 30;

/// The replica's command with a database of our own.
fn replica(cluster: &Cluster, place: usize, url: &str) -> Command {
    let mut command = quorate();
    command.args(["-o", "jsonl", "run", "--config"]).arg(cluster.replica_file(place));
    command.args(["--database-url", url, "--database-lag-max-blocks", &LAG_MAX.to_string()]);
    command
}

fn run(cluster: &mut Cluster, url: &str) {
    let command = replica(cluster, PLACE, url);
    cluster.put_in_place(PLACE, command);
    cluster.eventually("the replica to answer", || cluster.status(PLACE));
}

/// The status once the condition holds.
fn until(cluster: &Cluster, what: &str, is_it: impl Fn(&StatusSnapshot) -> bool) -> StatusSnapshot {
    cluster.eventually(what, || cluster.status(PLACE).filter(&is_it))
}

/// Waits until the replica's database has all that is committed, but for what is just coming.
fn caught_up(cluster: &Cluster) {
    let height = cluster.status(PLACE).expect("it runs").height;
    until(cluster, "the database to be caught up", |status| {
        status.store.state.as_str() == "storing"
            && status.store.applied_height >= height
            && !status.store.holds_plans
            && status.is_ready()
    });
}

/// Waits until the replica says by this name what is wrong, everywhere where it is asked, and goes on committing.
fn in_trouble(cluster: &Cluster, name: &str) {
    let status = until(cluster, &format!("the state {name}"), |status| status.store.state.as_str() == name);
    let reason = status.not_ready.iter().find(|reason| reason.reason == NotReadyReason::StoreFailing);
    // The board may have changed since it was looked at, but not the name.
    if let Some(reason) = reason {
        assert!(reason.detail.starts_with(&format!("{name}: ")), "{}", reason.detail);
        assert!(reason.detail.contains("behind by "), "{}", reason.detail);
    }
    cluster.eventually("/readyz to say so", || {
        let answer = ask(cluster, "/readyz")?;
        (answer.starts_with("HTTP/1.1 503") && answer.contains("\"store_failing\"") && answer.contains(name))
            .then_some(())
    });
    cluster.eventually("/metrics to say so", || {
        let answer = ask(cluster, "/metrics")?;
        let line = format!("quorate_store_state{{state=\"{name}\"}} 1\n");
        (answer.contains(&line) && answer.contains("quorate_store_up 0\n")).then_some(())
    });
    let height = status.height.number() + 5;
    until(cluster, "ordering to go on", |status| status.height.number() >= height);
}

/// The whole answer to a GET, whatever its status.
fn ask(cluster: &Cluster, path: &str) -> Option<String> {
    let patience = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&cluster.http(PLACE), patience).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// What a command says when it ends.
fn ended(cluster: &Cluster, command: Command) -> Output {
    ended_after(cluster, command, || ())
}

/// What a command says when it ends, after something was done while it ran.
fn ended_after(cluster: &Cluster, mut command: Command, what: impl FnOnce()) -> Output {
    // It ends with this test, should it not be refused.
    command.env(END_WITH_PARENT, "1").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = Some(command.spawn().expect("it starts"));
    what();
    cluster.eventually("a refused replica to end", || {
        let has_ended = |child: &mut Child| child.try_wait().expect("it is a child").is_some();
        child.as_mut().is_some_and(has_ended).then_some(())
    });
    child.take().expect("it is there").wait_with_output().expect("it has ended")
}

/// The command was refused with this code and says these words, and no secret.
fn refused(output: &Output, code: i32, words: &[&str]) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{told}");
    for word in words {
        assert!(told.contains(word), "{word:?} is not in: {told}");
    }
}

/// What the journal's blocks change up to a height, counted by table, with the block at that height.
struct Expected {
    rows: BTreeMap<&'static str, u64>,
    tip: String,
    windows: Vec<String>,
}

fn expected(replica_file: &Path, height: u64) -> Expected {
    let flags = ReplicaFlags { config: Some(replica_file.to_owned()), ..ReplicaFlags::default() };
    let config = ReplicaConfig::resolve(flags).expect("the replica ran with this file");
    let Membership { root, genesis, me, key } = Membership::read(&config).expect("it ran with these keys");
    let (committee, operators) = (Arc::new(root.committee().clone()), root.operators().clone());
    let times = ViewTimes::default();
    let core = Config {
        committee: Arc::clone(&committee),
        me,
        key: key.clone(),
        times,
        checkpoint_interval: genesis.parameters.checkpoint_interval,
    };
    let salt = Salt::new([7; SALT_BYTES]);
    let opened = task::open(core, &config.data_dir.join("journal"), salt);
    let (_, Recovered { blocks, .. }) = opened.expect("the journal is sound");
    let mut cycle =
        Cycle::new(CycleConfig { genesis, committee, operators, me, key }).expect("the genesis is sound");
    cycle.hold(Hold::Everything);
    let mut expected = Expected { rows: BTreeMap::new(), tip: String::new(), windows: Vec::new() };
    for committed in blocks.iter().take_while(|committed| committed.block.height().number() <= height) {
        cycle.commit(&committed.block);
        expected.tip = committed.block.id().to_string();
        expected.count("block_headers", 1);
        while let Some(step) = cycle.poll_output() {
            if let Step::Folded(folded) = step {
                folded.changes.iter().for_each(|change| expected.take(change));
            }
        }
    }
    expected
}

impl Expected {
    fn count(&mut self, table: &'static str, rows: usize) {
        *self.rows.entry(table).or_default() += rows as u64;
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "what has no row of its own is not counted")]
    fn take(&mut self, change: &Change) {
        match change {
            Change::WindowClosed(closed) => {
                self.count("merged_windows", 1);
                self.count("readings", closed.readings.len());
                self.count("window_values", closed.series.values().map(BTreeMap::len).sum());
                self.windows.push(format!("{} {}", closed.window.index(), closed.cycle.number()));
            }
            Change::Gap { .. } => self.count("window_gaps", 1),
            Change::Found { .. } => self.count("findings", 1),
            Change::PlanLogged(plan) => {
                self.count("plans", 1);
                self.count("certificates", 1);
                self.count("certificate_signatures", plan.signers().len());
            }
            Change::HeadDerived(_) => self.count("heads", 1),
            Change::ReceiptLogged { .. } => self.count("receipts", 1),
            Change::PlanRefused { .. } | Change::ReceiptRefused { .. } | Change::ReportRefused { .. } => {
                self.count("refusals", 1);
            }
            _ => {}
        }
    }
}

/// Ends all replicas and compares the database with the journal, row by row where they are few, else by number.
fn nothing_is_lost_or_stored_twice(cluster: &mut Cluster, database: &Database, name: &str) {
    cluster.end_replicas();
    let one = |query: &str| database.column(name, query).remove(0);
    let height: u64 = one("SELECT height::text FROM applied_height").parse().expect("a height");
    let expected = expected(&cluster.replica_file(PLACE), height);
    assert_eq!(one("SELECT encode(digest, 'hex') FROM applied_height"), expected.tip);
    assert!(expected.rows["merged_windows"] > 5 && expected.rows["plans"] > 0, "{:?}", expected.rows);
    for (table, rows) in &expected.rows {
        let which = if *table == "heads" { "heads WHERE height IS NOT NULL" } else { table };
        assert_eq!(one(&format!("SELECT count(*)::text FROM {which}")), rows.to_string(), "{table}");
    }
    let windows = "SELECT concat(window_index, ' ', cycle) FROM merged_windows ORDER BY window_index";
    let stored = database.column(name, windows);
    let differs = stored.iter().zip(&expected.windows).find(|(stored, expected)| stored != expected);
    assert_eq!((differs, stored.len()), (None, expected.windows.len()));
}

/// A cluster whose journals keep every block: what is stored is compared with them.
fn keeps_every_block() -> Options {
    let policy = vec![("[[target]]\nid", "[cycle]\ncheckpoint_interval = 65536\n\n[[target]]\nid")];
    Options { policy, ..Options::default() }
}

#[test]
fn ordering_and_signing_outlive_every_fault_of_a_database_and_nothing_is_lost() {
    let mut cluster = Cluster::start(&keeps_every_block());
    let engine = cluster.engine();
    let mut database = Database::start(folder());
    let small = database.create_in_small_room("r3");
    let url = small.clone().unwrap_or_else(|| database.create("r3"));
    cluster.told("r0", "window_final", |told| told["series"] == 1);
    cluster.kill(&[PLACE]);
    run(&mut cluster, &url);
    caught_up(&cluster);

    // Stopped, for longer than the bound. With r2 gone, r0 and r1 order nothing without this replica's votes and
    // certify no plan without its signature.
    database.stop();
    in_trouble(&cluster, "unreachable");
    until(&cluster, "plans to be held", |status| status.store.holds_plans);
    cluster.kill(&[2]);
    engine.wait_for_slots(BACKLOG);
    let derived = cluster.told("r0", "plan_derived", |_| true);
    let height = cluster.status(PLACE).expect("it runs").height.number() + 10;
    until(&cluster, "votes to go on", |status| status.height.number() >= height);
    assert_eq!(cluster.events("r0", "plan_certified"), Vec::<Value>::new(), "derived: {derived}");
    database.start_again();
    let logged = cluster.told("r0", "plan_logged", |_| true);
    assert_eq!(logged["signers"], serde_json::json!(["r0", "r1", "r3"]), "it signs plans again");
    caught_up(&cluster);
    cluster.restart(2);

    database.kill();
    in_trouble(&cluster, "unreachable");
    database.start_again();
    caught_up(&cluster);

    let session = database.lock("r3", "block_headers");
    in_trouble(&cluster, "locked");
    database.unlock(session);
    caught_up(&cluster);

    database.pause();
    in_trouble(&cluster, "timeout");
    database.go_on();
    caught_up(&cluster);

    if small.is_some() {
        database.fill_room();
        in_trouble(&cluster, "disk_full");
        database.empty_room();
        caught_up(&cluster);
    } else {
        println!("SKIPPED: the full disk needs the right to mount a file system");
    }
    drop(engine);
    nothing_is_lost_or_stored_twice(&mut cluster, &database, "r3");
}

#[test]
fn a_database_from_a_backup_or_an_empty_one_is_filled_once_and_old_days_go_while_windows_flow() {
    let mut cluster = Cluster::start(&keeps_every_block());
    let engine = cluster.engine();
    let mut database = Database::start(folder());
    let url = database.create("r3");
    engine.wait_for_slots(BACKLOG);
    cluster.told("r0", "plan_logged", |_| true);
    cluster.kill(&[PLACE]);
    run(&mut cluster, &url);
    caught_up(&cluster);

    // An older backup, under the running replica.
    database.copy(Way::Save);
    caught_up(&cluster);
    let saved = cluster.status(PLACE).expect("it runs").height.number();
    until(&cluster, "more blocks", |status| status.store.applied_height.number() > saved + 10);
    database.copy(Way::Restore);
    caught_up(&cluster);

    // An empty one, under the running replica.
    database.create("r3");
    // The replica may still speak of the old one: the tables tell that it has met the new.
    let tables = "SELECT count(*)::text FROM pg_proc WHERE proname = 'ensure_day_partitions'";
    cluster.eventually("the empty database to be filled", || {
        (database.column("r3", tables) == ["1"]).then_some(())
    });
    caught_up(&cluster);

    // Days of last year, some of them half dropped by an earlier process.
    cluster.kill(&[PLACE]);
    let old_days = "SELECT ensure_day_partitions(now() - day * interval '1 day') FROM generate_series(40, 44) AS day;
        INSERT INTO merged_windows SELECT now() - day * interval '1 day', day, 0, now(), 'confirmed', '{}', '{}', 0
        FROM generate_series(40, 44) AS day";
    database.execute("r3", old_days);
    let tables = "SELECT count(*)::text FROM pg_class WHERE relkind = 'r' AND relname ~ '_[0-9]{8}$'
        AND right(relname, 8) < to_char(now() - interval '15 days', 'YYYYMMDD')";
    assert_eq!(database.column("r3", tables), ["20"]);
    let half = "SELECT relname::text FROM pg_class WHERE relname ~ '^readings_[0-9]{8}$' ORDER BY 1 LIMIT 1";
    let half = database.column("r3", half).remove(0);
    database.execute("r3", &format!("ALTER TABLE readings DETACH PARTITION {half} CONCURRENTLY"));
    // And a leftover of a day that is kept: its own day would take no rows.
    let ahead = "SELECT ensure_day_partition('readings', now() + interval '5 days');
        DO $$ BEGIN EXECUTE 'ALTER TABLE readings DETACH PARTITION readings_'
            || to_char((now() + interval '5 days') AT TIME ZONE 'UTC', 'YYYYMMDD'); END $$";
    database.execute("r3", ahead);
    run(&mut cluster, &url);
    until(&cluster, "old days to go", |status| {
        // Queries go on meanwhile.
        let newest = "SELECT count(*)::text FROM merged_windows WHERE start_at > now() - interval '1 day'";
        assert_ne!(database.column("r3", newest), ["0"]);
        status.store.tables_dropped == 21
    });
    assert_eq!(database.column("r3", tables), ["0"]);
    caught_up(&cluster);
    assert_eq!(cluster.status(PLACE).expect("it runs").store.sweeps_failed, 0);
    drop(engine);
    nothing_is_lost_or_stored_twice(&mut cluster, &database, "r3");
}

#[test]
fn a_lost_journal_and_a_database_of_somebody_else_are_refused_before_anything_is_signed() {
    let mut cluster = Cluster::start(&Options::default());
    let mut database = Database::start(folder());
    let url = database.create("r3");
    cluster.kill(&[PLACE]);
    run(&mut cluster, &url);
    caught_up(&cluster);

    // Another replica at this one's database, and a second process of this very replica.
    cluster.kill(&[2]);
    refused(
        &ended(&cluster, replica(&cluster, 2, &url)),
        4,
        &["belongs to replica r3 of cluster", "give this replica a database of its own"],
    );
    let elsewhere = cluster.folder().join("elsewhere");
    let mut second = replica(&cluster, PLACE, &url);
    second.arg("--data-dir").arg(&elsewhere);
    refused(&ended(&cluster, second), 4, &["is in use by quorate r3 (process ", "end that process"]);
    cluster.restart(2);

    // An older copy of the journal, and none.
    cluster.kill(&[PLACE]);
    let journal = cluster.replica_file(PLACE).with_file_name("journal");
    assert!(journal.is_dir(), "{}", journal.display());
    let aside = |name: &str| cluster.folder().join(name);
    let (older, newest) = (aside("older"), aside("newest"));
    let copy = |from: &Path, to: &Path| {
        let _ = fs::remove_dir_all(to);
        assert!(Command::new("cp").arg("-a").args([from, to]).status().expect("cp starts").success());
    };
    copy(&journal, &older);
    run(&mut cluster, &url);
    caught_up(&cluster);
    let height = cluster.status(PLACE).expect("it runs").height.number() + 10;
    until(&cluster, "more signatures", |status| status.store.applied_height.number() >= height);
    cluster.kill(&[PLACE]);
    fs::rename(&journal, &newest).expect("the folder is ours");
    let lost =
        ["was lost or is an older copy, so this replica does not vote", "next: put the newest journal"];
    refused(&ended(&cluster, replica(&cluster, PLACE, &url)), 4, &lost);
    copy(&older, &journal);
    refused(&ended(&cluster, replica(&cluster, PLACE, &url)), 4, &lost);

    // Noticed late, when the database was away at the start.
    database.stop();
    let late = replica(&cluster, PLACE, &url);
    let late = ended_after(&cluster, late, || {
        cluster.eventually("the replica to answer", || cluster.status(PLACE));
        database.start_again();
    });
    refused(&late, 4, &lost);

    // Tables of a newer program.
    copy(&newest, &journal);
    run(&mut cluster, &url);
    caught_up(&cluster);
    cluster.kill(&[PLACE]);
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        VALUES (9000, 'later', true, '\\x00', 0)";
    database.execute("r3", newer);
    let words = ["are of version 9000", "run the newer program", "an empty database"];
    refused(&ended(&cluster, replica(&cluster, PLACE, &url)), 4, &words);
    let bad = "postgres://bob:hunter2@host:port/db";
    let output = ended(&cluster, replica(&cluster, PLACE, bad));
    refused(&output, 78, &["the database URL is malformed", "next: correct database_url"]);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("hunter2"));
}
