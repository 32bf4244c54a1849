//! `quorate dev` as a tool that people run daily: committees of any size, folders of every kind, databases of one's
//! own, and kills at any moment.
//!
//! Real processes, one cluster at a time. Invariant: a moment to kill at is drawn, everything else is waited for by
//! its condition.
#![cfg(feature = "service")]

#[expect(dead_code, reason = "each test binary uses its own part of the harness")]
mod harness;

use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Output,
    time::Duration,
};

use harness::{
    cluster::{AGENT, Cluster, Options, READY, folder, port_flags, quorate, spawn_dev, turn},
    poll,
    processes::{self, Signal},
};
use quorate::{
    knowledge::root::VerifiedRoot,
    service::postgres::PrivatePostgres,
    types::{CommitteeSize, ReplicaIndex, SecretKey},
};
use sqlx::{Connection as _, PgConnection};

/// A backlog that breaks the example policy's threshold of 20.
const BACKLOG: i64 = 30;

fn flags(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// From the first window to the receipt.
fn goes_all_the_way(replicas: usize) {
    let size = CommitteeSize::new(replicas).expect("it is a committee");
    let mut cluster = Cluster::start(&Options { replicas: Some(replicas), ..Options::default() });
    let engine = cluster.engine();
    cluster.told("r0", "window_final", |told| told["series"] == 1 && told["reports"] == replicas);
    engine.wait_for_slots(BACKLOG);
    let logged = cluster.told("r0", "plan_logged", |_| true);
    let signers = logged["signers"].as_array().expect("they are listed");
    assert!(signers.len() >= size.quorum(), "{signers:?} of {replicas}");
    cluster.told(AGENT, "applied", |applied| applied["seq"] == logged["cycle"]);
    let last = format!("r{}", replicas - 1);
    cluster.told(&last, "receipt_logged", |receipt| {
        receipt["seq"] == logged["cycle"] && receipt["outcome"]["kind"] == "applied"
    });
    drop(engine);
    cluster.end();
    assert_eq!(processes::naming(cluster.folder()), Vec::<String>::new(), "nothing is left");
}

#[test]
fn one_replica_alone_goes_all_the_way() {
    goes_all_the_way(1);
}

#[test]
fn seven_replicas_go_all_the_way() {
    goes_all_the_way(7);
}

/// Numbers that look drawn and are the same in every run (splitmix64).
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// The process of the folder's private Postgres, by the file that it keeps.
fn postmaster(folder: &Path) -> Option<u32> {
    let text = fs::read_to_string(folder.join("postgres/cluster/postmaster.pid")).ok()?;
    text.lines().next()?.trim().parse().ok()
}

/// Who is killed: the parent of all, or one of its children first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    /// While it starts or founds.
    Starting,
    Dev,
    Replica,
    Agent,
    Postgres,
}

/// Kills a process of the cluster, and then `quorate dev` itself, without a warning.
fn kill(folder: &Path, dev: &mut std::process::Child, victim: Victim) {
    let named = |name: &str| {
        let ready: serde_json::Value = serde_json::from_slice(&fs::read(folder.join(READY)).ok()?).ok()?;
        u32::try_from(ready["processes"][name].as_u64()?).ok()
    };
    let pid = match victim {
        Victim::Starting | Victim::Dev => None,
        Victim::Replica => named("r1"),
        Victim::Agent => named(AGENT),
        Victim::Postgres => postmaster(folder),
    };
    if let Some(pid) = pid {
        processes::signal(pid, Signal::KILL);
        let told = || fs::read_to_string(folder.join("dev.out")).unwrap_or_default().contains(" ended (");
        assert!(poll(|| told().then_some(())).is_some(), "{victim:?} ended and nobody says so");
        assert!(dev.try_wait().expect("it is a child").is_none(), "the others go on without {victim:?}");
    }
    dev.kill().expect("it is ours");
    dev.wait().expect("it is ours");
}

#[test]
fn killed_ten_times_at_any_moment_a_cluster_is_still_itself() {
    use Victim::{Agent, Dev, Postgres, Replica, Starting};
    let (turn, folder) = (turn(), folder());
    let mut draw = Draw(7);
    let mut arguments = flags(&["--speed", "20", "--replicas", "4"]);
    arguments.extend(port_flags(4));
    let mut first_root = None;
    let victims = [Starting, Starting, Starting, Starting, Dev, Replica, Starting, Postgres, Agent, Dev];
    for victim in victims {
        let _ = fs::remove_file(folder.path().join(READY));
        let mut dev = spawn_dev(folder.path(), &arguments);
        if victim != Starting {
            let is_ready = || folder.path().join(READY).exists().then_some(());
            assert!(poll(is_ready).is_some(), "{}", text(folder.path(), "dev.err"));
        }
        // The moment of the end is what is drawn.
        std::thread::sleep(Duration::from_millis(draw.below(2_500)));
        let ended = dev.try_wait().expect("it is a child");
        assert!(ended.is_none(), "{victim:?}: {}", text(folder.path(), "dev.err"));
        kill(folder.path(), &mut dev, victim);
        let root = fs::read(folder.path().join("root.json")).ok();
        assert!(first_root.is_none() || first_root == root, "{victim:?}: the root has changed");
        first_root = root;
    }

    let mut cluster = Cluster::start_in(turn, folder, 4, &[]);
    let engine = cluster.engine();
    engine.wait_for_slots(BACKLOG);
    let root = VerifiedRoot::first(&first_root.expect("it was founded")).expect("it is whole");
    cluster.told(AGENT, "applied", |_| true);
    let before = cluster.status(0).expect("it runs");
    assert_eq!(before.cluster, root.committee().cluster());
    processes::signal(cluster.dev(), Signal::KILL);
    cluster.ended();
    cluster.resume();
    cluster.eventually("heights to go on at every replica", || {
        let goes_on = |place| {
            let now = cluster.status(place)?;
            (now.height > before.height && now.agreed_time_ms > before.agreed_time_ms).then_some(())
        };
        (0..4).map(goes_on).collect::<Option<Vec<()>>>()
    });
    drop(engine);
    let applied = cluster.events(AGENT, "applied");
    let distinct: BTreeSet<u64> = applied.iter().filter_map(|told| told["seq"].as_u64()).collect();
    assert_eq!(applied.len(), distinct.len(), "a plan was applied twice: {applied:?}");
    cluster.end();
}

#[test]
fn what_an_earlier_start_left_behind_stops_no_later_one() {
    let (turn, folder) = (turn(), folder());
    let write = |name: &str, text: &str, mode: u32| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("it lies in the folder")).expect("it is ours");
        fs::write(&path, text).expect("it is ours");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("it is ours");
    };
    // A founding that was cut off after the first key, in the middle of the second, and in the database's making.
    let key = SecretKey::from_seed(&[7; 32]);
    write("replicas/r0/replica.key", &"07".repeat(32), 0o600);
    write("owners/owner-0.key.new", "0707", 0o600);
    write("lock", "what a dead process wrote", 0o644);
    fs::create_dir_all(folder.path().join("postgres/cluster.unfinished/base")).expect("it is ours");
    fs::set_permissions(folder.path().join("postgres"), Permissions::from_mode(0o711)).expect("it is ours");

    let mut arguments = flags(&["--replicas", "1", "--no-agents"]);
    arguments.extend(port_flags(1));
    let mut cluster = Cluster::start_in(turn, folder, 1, &arguments);
    let root = VerifiedRoot::first(cluster.text("root.json").as_bytes()).expect("it is whole");
    assert_eq!(root.committee().place_of(&key.public()).map(ReplicaIndex::place), Some(0));

    // Postgres and all its traces are there, and its number belongs to something else by now.
    processes::signal(cluster.dev(), Signal::KILL);
    cluster.ended();
    let pid_file = cluster.folder().join("postgres/cluster/postmaster.pid");
    cluster.eventually("Postgres to end", || (!pid_file.exists()).then_some(()));
    for left in ["postgres/cluster/postmaster.pid", "postgres/socket/.s.PGSQL.5432.lock"] {
        let path = cluster.folder().join(left);
        fs::create_dir_all(path.parent().expect("it lies in the folder")).expect("it is ours");
        fs::write(&path, format!("{}\n", std::process::id())).expect("it is ours");
    }
    cluster.resume_with(&flags(&["--no-agents"]));

    // Asked once it ends in order, which takes as long as the longest child; asked twice, at once.
    let all = cluster.processes();
    processes::signal(cluster.replica_process(0), Signal::STOP);
    processes::signal(cluster.dev(), Signal::INT);
    cluster.eventually("the ending to begin", || {
        cluster.text("dev.out").contains("ending replicas").then_some(())
    });
    processes::signal(cluster.dev(), Signal::INT);
    assert_eq!(cluster.ended().code(), Some(1));
    assert!(cluster.text("dev.err").contains("quorate: ended at once"), "{}", cluster.text("dev.err"));
    cluster.eventually("all processes to end", || all.iter().all(|pid| !processes::runs(*pid)).then_some(()));
}

fn text(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap_or_default()
}

/// Runs `quorate dev` that is refused; it holds nobody up.
fn refused(folder: &Path, arguments: &[String]) -> (Option<i32>, String) {
    let output: Output =
        quorate().args(["dev", "--data-dir"]).arg(folder).args(arguments).output().expect("it starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What becomes of a file's text; `None` when the file goes.
type Change<'a> = &'a dyn Fn(&str) -> Option<String>;

#[test]
fn a_folder_that_is_not_as_it_was_founded_is_refused_with_what_to_do() {
    let options = Options { replicas: Some(1), more: flags(&["--no-agents"]), ..Options::default() };
    let mut cluster = Cluster::start(&options);
    cluster.end();
    let other_key = format!("{}\n", "09".repeat(32));
    let version = |text: &str| text.replace("\"version\": 2", "\"version\": 1");
    // The relay's port would be one of the second replica's.
    let larger = |text: &str| {
        let mut plan: serde_json::Value = serde_json::from_str(text).expect("it is JSON");
        (plan["replicas"], plan["otlp_port"]) = (2.into(), 1024.into());
        plan.to_string()
    };
    let window = |text: &str| text.replace("longest_hold", "series_limit = 9\nlongest_hold");
    let rows: &[(&str, Change<'_>, &str)] = &[
        ("dev.json", &|text| Some(version(text)), "(folder version 1); this is quorate"),
        ("dev.json", &|_| None, "that `quorate dev` did not found (no dev.json)"),
        ("dev.json", &|text| Some(text[..20].to_owned()), "dev.json: damaged: "),
        ("dev.json", &|text| Some(larger(text)), "names 1 replicas, and dev.json 2"),
        ("root.json", &|_| None, "root.json is gone; restore it from a copy"),
        ("root.json", &|text| Some(text.replacen("payload", "payloads", 1)), "root.json: "),
        (
            "genesis.toml",
            &|text| Some(text.replace("max = 12", "max = 13")),
            "not the genesis that root.json commits to",
        ),
        ("genesis.toml", &|text| Some(window(text)), "genesis.toml:"),
        ("replicas/r0/replica.key", &|_| Some(other_key.clone()), "the key of no replica of root.json"),
        ("replicas/r0/replica.key", &|_| None, "replica.key: No such file"),
    ];
    for (name, change, words) in rows {
        let path = cluster.folder().join(name);
        let before = fs::read_to_string(&path).expect("it is there");
        match change(&before) {
            Some(after) => fs::write(&path, after).expect("it is ours"),
            None => fs::remove_file(&path).expect("it is ours"),
        }
        let (code, told) = refused(cluster.folder(), &[]);
        let expected = if *words == "genesis.toml:" { 78 } else { 4 };
        assert_eq!(code, Some(expected), "{name}: {told}");
        assert!(told.starts_with("quorate: ") && told.contains(words), "{name}: {words:?} is not in {told}");
        fs::write(&path, before).expect("it is ours");
        if name.ends_with(".key") {
            fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("it is ours");
        }
    }
    for (more, words) in [
        (["--replicas", "4"], "founded with --replicas 1, not 4; leave the flag out"),
        (["--speed", "3"], "founded with --speed 20, not 3; leave the flag out"),
        (["--policy", "my.toml"], "founded with --policy the default policies, not "),
    ] {
        let (code, told) = refused(cluster.folder(), &flags(&more));
        assert_eq!((code, told.contains(words)), (Some(2), true), "{told}");
    }
    assert_eq!(processes::naming(cluster.folder()), Vec::<String>::new(), "nothing was started");
    // Everything is as it was again.
    cluster.resume();
    cluster.end();
}

#[test]
fn databases_of_ones_own_are_made_kept_and_not_shared() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("there are threads");
    let server = runtime.block_on(PrivatePostgres::temporary()).expect("a private Postgres starts");
    let admin = server.url("postgres");
    runtime.block_on(async {
        let mut admin = PgConnection::connect(&admin).await.expect("the server answers");
        sqlx::raw_sql("CREATE ROLE poor LOGIN").execute(&mut admin).await.expect("it is allowed");
    });
    let template = format!("{}&password=sesame", admin.replace("/postgres?", "/quorate_{replica}?"));
    let more = flags(&["--no-agents", "--database-url", &template]);
    let mut cluster = Cluster::start(&Options { replicas: Some(2), more, ..Options::default() });
    let rows = || {
        runtime.block_on(async {
            let url = server.url("quorate_r1");
            let mut connection = PgConnection::connect(&url).await.expect("the database was made");
            let count = sqlx::query_scalar::<_, i64>("SELECT height FROM applied_height");
            count.fetch_optional(&mut connection).await.ok().flatten().unwrap_or_default()
        })
    };
    let before = cluster
        .eventually("blocks in the second replica's database", || Some(rows()).filter(|rows| *rows > 0));
    cluster.end();
    assert!(!cluster.folder().join("postgres").exists(), "no private server was made");

    cluster.resume();
    cluster.eventually("more blocks after a start without the flag", || (rows() > before).then_some(()));
    cluster.end();
    let kept = cluster.folder().join("replicas/r1/database.url");
    let mode = kept.metadata().expect("it is kept").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "the URL holds a password");
    let shown =
        ["dev.out", "dev.err", "dev.json", READY, "events.jsonl", "logs/r0.log", "replicas/r0/replica.toml"];
    for name in shown {
        assert!(!cluster.text(name).contains("sesame"), "{name} holds the password");
    }

    let other = folder();
    let poor = template.replace("user=quorate", "user=poor").replace("quorate_{", "poor_{");
    let nobody = template.replace("user=quorate", "user=ghost");
    let rows: [(&str, i32, &str); 8] = [
        (&template, 1, "/quorate_r0: belongs to replica r0 of cluster "),
        (
            &poor,
            1,
            "/poor_r0: there is no such database, and it cannot be created: permission denied to create database; create it yourself: createdb --template=template0 --encoding=UTF8 poor_r0",
        ),
        (
            &nobody,
            1,
            "Postgres refuses the connection: role \"ghost\" does not exist; correct --database-url",
        ),
        (
            "postgres://me:sesame@127.0.0.1:1/q_{replica}",
            1,
            "postgres://me@127.0.0.1:1/q_r0: Postgres does not answer: ",
        ),
        ("postgres://me:sesame@127.0.0.1/quorate", 2, "must contain {replica}"),
        ("postgres://me:sesame@{replica}", 2, "names no database"),
        ("postgres://me:sesame@host:port/{replica}", 2, "is malformed"),
        ("mysql://me:sesame@host/{replica}", 2, "must begin with postgres://"),
    ];
    let ports = port_flags(2);
    for (url, expected, words) in rows {
        let mut arguments = flags(&["--replicas", "2"]);
        arguments.extend(ports.clone());
        let (code, told) = refused(other.path(), &[arguments, flags(&["--database-url", url])].concat());
        assert_eq!(code, Some(expected), "{told}");
        assert!(told.contains(words) && !told.contains("sesame"), "{words:?} is not in {told}");
    }
    runtime.block_on(server.stop()).expect("it stops");
}
