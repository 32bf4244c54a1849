//! Real processes that are killed, lied to by their disks and stopped where they are, again and again: what they signed
//! contradicts nothing, what was acknowledged is there, and all agree.
//!
//! One seat is a listener's, which votes and writes down what it hears. `QUORATE_KILLS` says how many replicas are
//! killed. Figures are printed and never asserted. Invariant: every wait is for a condition; pauses only choose the
//! moment of a kill.
#![cfg(feature = "service")]

#[expect(dead_code, reason = "each test binary uses its own part of the harness")]
mod harness;

#[path = "kill_loop/client.rs"]
mod client;
#[path = "kill_loop/history.rs"]
mod history;
#[path = "kill_loop/judge.rs"]
mod judge;
#[path = "kill_loop/knowledge.rs"]
mod knowledge;
#[path = "kill_loop/recovery.rs"]
mod recovery;
#[path = "kill_loop/statements.rs"]
mod statements;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use client::Client;
use harness::{
    adversaries,
    cluster::{Cluster, Options, REPLICAS},
    http, journal,
    processes::{self, Signal},
};
use knowledge::Knowledge;
use quorate::{
    knowledge::root::VerifiedRoot,
    service::{clock::Stopwatch, founding::Layout},
    types::{Committee, Millis, ReplicaIndex},
};
use statements::Statements;

/// How many replicas are killed in CI.
const KILLS: usize = 50;

/// The seat that listens.
const LISTENER: usize = 3;

/// The seats that are killed.
const KILLED: [usize; 3] = [0, 1, 2];

/// A backlog that breaks the example policy's threshold of 20, so that plans are endorsed.
const BACKLOG: i64 = 30;

/// A stream of choices that is the same in every run, whatever the machine makes of it.
#[derive(Debug)]
struct Choices(u64);

impl Choices {
    /// One of so many, from 0 (SplitMix64, Steele et al. 2014).
    fn pick(&mut self, of: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33) % of
    }

    /// One seat usually, two sometimes, all three now and then.
    fn victims(&mut self) -> Vec<usize> {
        let first = usize::try_from(self.pick(3)).expect("it is small");
        let count = match self.pick(10) {
            0 => 3,
            1 | 2 => 2,
            _ => 1,
        };
        (0..count).map(|next| KILLED[(first + next) % KILLED.len()]).collect()
    }
}

/// Plans may follow each other within seconds.
fn quick() -> Options {
    let policy = vec![
        (r#"cooldown = "5m""#, r#"cooldown = "20s""#),
        (r#"cooldown = "2m""#, r#"cooldown = "20s""#),
        ("plans_per_hour = 6", "plans_per_hour = 600"),
    ];
    Options { policy, ..Options::default() }
}

/// Puts a listener into its seat; the file that it writes.
fn listen(cluster: &mut Cluster) -> PathBuf {
    let wire = cluster.folder().join("wire.bin");
    let mut listener = Command::new(adversaries::program());
    cluster.kill(&[LISTENER]);
    listener.arg("listener").arg("--wire").arg(&wire).arg("--config").arg(cluster.replica_file(LISTENER));
    cluster.put_in_place(LISTENER, listener);
    cluster.eventually("the listener to hear something", || {
        fs::metadata(&wire).is_ok_and(|file| file.len() > 0).then_some(())
    });
    wire
}

fn height(cluster: &Cluster, place: usize) -> Option<u64> {
    Some(cluster.status(place)?.height.number())
}

/// Waits until a replica has committed something above a height; how long that took.
fn commits_above(cluster: &Cluster, place: usize, above: u64) -> Millis {
    let watch = Stopwatch::start();
    cluster.eventually("a new block", || (height(cluster, place)? > above).then_some(()));
    watch.elapsed()
}

/// Ends all replicas and looks at everything that they signed and stored.
fn no_contradiction(cluster: &mut Cluster, wire: &Path) -> (Statements, Vec<Knowledge>) {
    cluster.end_replicas();
    let root = fs::read(Layout::of(cluster.folder().to_owned()).root()).expect("the cluster is founded");
    let committee = VerifiedRoot::first(&root).expect("the cluster ran with it").committee().clone();
    let statements = statements_of(cluster, wire, committee);
    let stored: Vec<Knowledge> =
        KILLED.iter().map(|place| Knowledge::read(&cluster.replica_file(*place))).collect();
    (statements, stored)
}

fn statements_of(cluster: &Cluster, wire: &Path, committee: Committee) -> Statements {
    let mut statements = Statements::new(committee);
    statements.wire(wire);
    for place in 0..REPLICAS {
        let signed = journal::read(&cluster.replica_file(place));
        let replica = ReplicaIndex::new(u16::try_from(place).expect("it is small"));
        statements.journal(replica, &signed);
    }
    statements
}

#[test]
fn replicas_killed_at_any_moment_contradict_nothing_and_lose_nothing_that_was_acknowledged() {
    let kills = std::env::var("QUORATE_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    let mut cluster = Cluster::start(&quick());
    let engine = cluster.engine();
    let wire = listen(&mut cluster);
    let addresses = KILLED.iter().map(|place| cluster.http(*place)).collect();
    let client = Client::start(cluster.folder(), addresses);
    let (mut choices, mut killed, mut rounds, mut slowest) = (Choices(7), 0, 0, Millis::ZERO);
    while killed < kills {
        engine.wait_for_slots(if rounds % 4 < 2 { BACKLOG } else { 0 });
        // The moment of the kill is what is drawn.
        std::thread::sleep(Duration::from_millis(choices.pick(300)));
        let victims = choices.victims();
        let before = KILLED.iter().filter_map(|place| height(&cluster, *place)).max().unwrap_or(0);
        cluster.kill(&victims);
        killed += victims.len();
        rounds += 1;
        let watch = Stopwatch::start();
        victims.iter().for_each(|place| cluster.restart(*place));
        commits_above(&cluster, victims[0], before);
        slowest = slowest.max(watch.elapsed());
    }
    let acknowledged = client.end();
    let newest = acknowledged
        .iter()
        .map(|acknowledged| acknowledged.height)
        .max()
        .expect("something was acknowledged");
    cluster.eventually("every database to hold what was acknowledged", || {
        let stored = |place: &usize| Some(cluster.status(*place)?.store.applied_height.number());
        KILLED.iter().all(|place| stored(place) > Some(newest)).then_some(())
    });
    drop(engine);
    let (statements, stored) = no_contradiction(&mut cluster, &wire);
    let common = stored.iter().map(|one| one.height).min().expect("there are three");
    let rows: Vec<usize> = stored.iter().map(|one| one.agree(&stored[0], common)).collect();
    for one in &stored {
        for acknowledged in &acknowledged {
            let digest = format!("\\\\x{}", acknowledged.digest);
            let rows = one.rows("operator_requests", acknowledged.height - 1, acknowledged.height);
            assert!(rows.iter().any(|(_, row)| row.contains(&digest)), "{acknowledged:?} is lost");
        }
    }
    let evidence = stored[0].rows("evidence", 0, common);
    assert!(evidence.is_empty(), "honest replicas are accused: {evidence:?}");
    let heard = &statements.heard;
    for kind in ["vote", "proposal", "timeout", "report", "endorsement"] {
        assert!(heard.contains_key(kind), "the listener heard no {kind}: {heard:?}");
    }
    println!(
        "{killed} kills in {rounds} rounds; {} statements of {REPLICAS} replicas, heard {heard:?}; height {common}, {} seen \
         committed, {} rows equal; {} requests acknowledged, all there; slowest round {slowest}",
        statements.count(),
        statements.commits(),
        rows[0],
        acknowledged.len(),
    );
}

/// How a disk fails, and what the replica says of it.
struct DiskFault {
    syscall: &'static str,
    error: &'static str,
    /// From which of a thread's calls on the journal on.
    from: usize,
    /// Among what the replica says at its end.
    says: &'static [&'static str],
}

const DISK_FAULTS: [DiskFault; 5] = [
    DiskFault { syscall: "fdatasync", error: "EIO", from: 40, says: &STOPPED },
    DiskFault { syscall: "write", error: "ENOSPC", from: 60, says: &FULL },
    DiskFault { syscall: "write", error: "EIO", from: 60, says: &STOPPED },
    DiskFault { syscall: "fdatasync", error: "ENOSPC", from: 40, says: &FULL },
    // The folder is synced when the journal is opened: the replica does not begin to vote.
    DiskFault {
        syscall: "fsync",
        error: "EIO",
        from: 1,
        says: &["the journal cannot be read", "next: make room"],
    },
];

const STOPPED: [&str; 3] =
    ["the journal failed, so this replica stops", "Input/output error", "next: make room"];
const FULL: [&str; 3] =
    ["the journal failed, so this replica stops", "no space is left on the disk", "next: make room"];

#[test]
fn a_replica_whose_disk_fails_stops_with_the_cause_and_goes_on_without_a_contradiction() {
    let traced = Command::new("strace").args(["-qqq", "-o", "/dev/null", "true"]).status();
    if !traced.is_ok_and(|status| status.success()) {
        eprintln!("skipped: strace is not installed (`scripts/setup test` does it) or may not trace here");
        return;
    }
    let victim = KILLED[1];
    let mut cluster = Cluster::start(&quick());
    let engine = cluster.engine();
    engine.wait_for_slots(BACKLOG);
    let wire = listen(&mut cluster);
    for fault in &DISK_FAULTS {
        cluster.kill(&[victim]);
        let log = cluster.folder().join(format!("successor-r{victim}.log"));
        let said_before = fs::metadata(&log).map_or(0, |file| file.len());
        let command = on_failing_disk(&cluster, victim, fault);
        cluster.put_in_place(victim, command);
        let status = cluster.successor_ended(victim);
        let said = fs::read(&log).expect("the replica writes it");
        let said = String::from_utf8_lossy(&said[usize::try_from(said_before).expect("logs are small")..])
            .into_owned();
        let what = format!("{} {}", fault.syscall, fault.error);
        assert_eq!(status.code(), Some(1), "{what}: {said}");
        for words in fault.says {
            assert!(said.contains(words), "{what}: {words:?} is not in {said}");
        }
        let before = height(&cluster, KILLED[0]).expect("the others go on");
        cluster.restart(victim);
        commits_above(&cluster, victim, before);
    }
    drop(engine);
    let (statements, stored) = no_contradiction(&mut cluster, &wire);
    let common = stored.iter().map(|one| one.height).min().expect("there are three");
    for one in &stored {
        one.agree(&stored[0], common);
    }
    assert!(statements.count() > 0);
}

/// A replica under `strace`, which lets calls on its journal fail.
fn on_failing_disk(cluster: &Cluster, place: usize, fault: &DiskFault) -> Command {
    /// Segments that may begin meanwhile.
    const SEGMENTS: u64 = 64;
    let folder = journal::folder(&cluster.replica_file(place));
    let names = fs::read_dir(&folder).expect("the replica made it");
    let newest = names
        .filter_map(|name| name.ok()?.file_name().to_str()?.strip_suffix(".journal")?.parse::<u64>().ok())
        .max()
        .expect("a replica that ran has a segment");
    let mut command = Command::new("strace");
    command.args(["-f", "-qqq", "--seccomp-bpf", "-o", "/dev/null"]);
    command.args(["-e", &format!("trace={}", fault.syscall)]);
    command.args(["-e", &format!("inject={}:error={}:when={}+", fault.syscall, fault.error, fault.from)]);
    command.arg("-P").arg(&folder);
    for segment in newest..newest + SEGMENTS {
        command.arg("-P").arg(folder.join(format!("{segment:016}.journal")));
    }
    command.arg(env!("CARGO_BIN_EXE_quorate")).args(["-o", "jsonl", "run", "--config"]);
    command.arg(cluster.replica_file(place));
    command
}

#[test]
fn a_replica_that_stands_still_for_longer_than_its_views_last_stops_nothing_and_goes_on() {
    let still = KILLED[1];
    let mut cluster = Cluster::start(&quick());
    let engine = cluster.engine();
    engine.wait_for_slots(BACKLOG);
    let wire = listen(&mut cluster);
    let client = Client::start(cluster.folder(), vec![cluster.http(KILLED[0])]);
    let before = cluster.status(KILLED[0]).expect("it runs");
    processes::signal(cluster.replica_process(still), Signal::STOP);
    // In as many views as there are replicas, each leads once; views that it led have ended without it.
    let (mut newest, mut watch, mut longest) = (before.height.number(), Stopwatch::start(), Millis::ZERO);
    cluster.eventually("blocks while a replica stands still", || {
        let status = cluster.status(KILLED[0])?;
        if status.height.number() > newest {
            newest = status.height.number();
            longest = longest.max(watch.elapsed());
            watch = Stopwatch::start();
        }
        let views = status.view.number() - before.view.number();
        (views > 4 * REPLICAS as u64 && newest > before.height.number() + 4).then_some(())
    });
    processes::signal(cluster.replica_process(still), Signal::CONT);
    commits_above(&cluster, still, newest);
    let signed = cluster.status(still).expect("it runs").height.number();
    commits_above(&cluster, still, signed);
    assert!(!client.end().is_empty(), "the others acknowledged meanwhile");
    drop(engine);
    let (statements, stored) = no_contradiction(&mut cluster, &wire);
    let common = stored.iter().map(|one| one.height).min().expect("there are three");
    for one in &stored {
        one.agree(&stored[0], common);
    }
    assert!(statements.heard.contains_key("timeout"), "its views timed out");
    println!("a replica stood still: the longest the others went without a block was {longest}");
}
