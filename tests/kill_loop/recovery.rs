//! How long a cluster of real processes takes to recover: figures for people, printed as a table and never asserted.
//!
//! A time begins with the cause, or with the start of what was ended, and ends with the first look that sees the effect.
//! Invariant: telemetry goes on all the while, so that there is always something to commit soon.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use quorate::{
    service::{
        clock::{Stopwatch, wall_clock},
        config::{POLICY_EXAMPLE, PolicyFile, Speed},
        founding::{Founding, ReplicaPlace, found},
        postgres::PrivatePostgres,
        status::StatusSnapshot,
    },
    types::Millis,
};
use sqlx::{Connection as _, PgConnection};
use tokio::runtime::Runtime;

use super::{BACKLOG, Client, Cluster, Options, REPLICAS, harness, height, history, http, journal, quick};

/// How often each recovery is measured.
const MEASURED: usize = 10;

/// How often those are that take longer to prepare.
const MEASURED_LONGER: usize = 5;

/// Blocks in the journal that a restart reads.
const HISTORY_BLOCKS: u64 = 10_000;

/// Blocks that are committed while Postgres is away.
const BLOCKS_WITHOUT_DATABASE: u64 = 50;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// One kind of recovery, measured some times.
type Measure = fn(&mut Measured) -> Vec<Millis>;

/// The last seat; the others are a quorum without it.
const LAST: usize = REPLICAS - 1;

#[test]
#[ignore = "it prints figures and proves nothing: `just recovery-times`"]
fn recovery_takes_this_long() {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load average: {load}\n| what | median | least | most | times |\n|---|---|---|---|---|");
    let mut measured = Measured::start();
    let kinds: [(&str, Measure); 5] = [
        ("Postgres is back, until a database holds what was committed meanwhile", Measured::postgres_away),
        ("leader killed, until another replica has the next block", Measured::leaders_killed),
        ("a replica without which there is no quorum started again, until the next block", Measured::needed),
        ("all four started again at once, until the next block", Measured::all_killed),
        ("started with an empty disk and database, until it has all blocks", Measured::empty_disk),
    ];
    for (what, measure) in kinds {
        println!("{}", row(what, measure(&mut measured)));
    }
    drop(measured);
    let what = format!("started with a journal of {HISTORY_BLOCKS} blocks, until it has all of them");
    println!("{}", row(&what, restarts_with_a_history()));
}

fn row(what: &str, mut times: Vec<Millis>) -> String {
    times.sort();
    let (least, most) = (times[0], times[times.len() - 1]);
    format!("| {what} | {} | {least} | {most} | {} |", times[times.len() / 2], times.len())
}

/// A cluster under load, on a Postgres that can be ended.
struct Measured {
    cluster: Cluster,
    client: Option<Client>,
    _engine: harness::telemetry::Engine,
    server: Option<PrivatePostgres>,
    server_folder: tempfile::TempDir,
    runtime: Runtime,
}

impl Measured {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let (runtime, server_folder) = (runtime.expect("there are threads"), harness::cluster::folder());
        let server = runtime.block_on(PrivatePostgres::start(&server_folder.path().join("server")));
        let server = server.expect("Postgres is installed");
        let url = server.url("quorate_{replica}");
        let more = ["--no-agents", "--database-url", &url].map(str::to_owned).to_vec();
        let cluster = Cluster::start(&Options { more, ..quick() });
        let engine = cluster.engine();
        engine.wait_for_slots(BACKLOG);
        Self { cluster, client: None, _engine: engine, server: Some(server), server_folder, runtime }
    }

    /// How long it takes until a replica's status is as it must be.
    fn until(&self, place: usize, is_so: impl Fn(&StatusSnapshot) -> bool) -> Millis {
        let watch = Stopwatch::start();
        while !self.cluster.status(place).is_some_and(|status| is_so(&status)) {
            assert!(watch.elapsed() < Millis::from_secs(120), "r{place} does not recover");
            std::thread::sleep(LOOK);
        }
        watch.elapsed()
    }

    fn until_above(&self, place: usize, height: u64) -> Millis {
        self.until(place, |status| status.height.number() > height)
    }

    fn height(&self, place: usize) -> u64 {
        height(&self.cluster, place).expect("it runs")
    }

    fn leaders_killed(&mut self) -> Vec<Millis> {
        // From here on there is always something to commit, and often more than a database keeps up with.
        let addresses = (0..REPLICAS).map(|place| self.cluster.http(place)).collect();
        self.client = Some(Client::start(self.cluster.folder(), addresses));
        let one = |_| {
            let view = self.cluster.status(0).expect("it runs").view.number();
            // Leaders take turns: the one of this view, or of the next if that has begun meanwhile.
            let victim = usize::try_from(view).expect("it is small") % REPLICAS;
            let other = (victim + 1) % REPLICAS;
            self.cluster.kill(&[victim]);
            let before = self.height(other);
            let taken = self.until_above(other, before);
            self.cluster.restart(victim);
            self.until_above(victim, before);
            taken
        };
        (0..MEASURED).map(one).collect()
    }

    /// While another is down, so that nothing commits before this one votes.
    fn needed(&mut self) -> Vec<Millis> {
        self.cluster.kill(&[LAST]);
        let one = |_| {
            self.cluster.kill(&[0]);
            self.cluster.start_again(0);
            // By now the votes that it sent before its end have arrived, and it has not begun again.
            let before = self.height(1);
            let taken = self.until_above(1, before);
            self.until_above(0, before);
            taken
        };
        let taken = (0..MEASURED).map(one).collect();
        self.cluster.restart(LAST);
        let newest = self.height(0);
        self.until_above(LAST, newest);
        taken
    }

    fn all_killed(&mut self) -> Vec<Millis> {
        let one = |_| {
            let before = self.height(0);
            self.cluster.kill(&[0, 1, 2, 3]);
            (0..REPLICAS).for_each(|place| self.cluster.start_again(place));
            let taken = self.until_above(0, before);
            for place in 1..REPLICAS {
                self.until_above(place, before);
            }
            taken
        };
        (0..MEASURED).map(one).collect()
    }

    fn postgres_away(&mut self) -> Vec<Millis> {
        let one = |_| {
            let server = self.server.take().expect("it runs");
            self.runtime.block_on(server.stop()).expect("it ends when it is asked to");
            let before = self.height(0);
            self.until_above(0, before + BLOCKS_WITHOUT_DATABASE);
            let data_dir = self.server_folder.path().join("server");
            let again = PrivatePostgres::start(&data_dir);
            self.server = Some(self.runtime.block_on(again).expect("it ran before"));
            let newest = self.height(0);
            self.until(0, |status| status.store.applied_height.number() >= newest)
        };
        (0..MEASURED_LONGER).map(one).collect()
    }

    /// Its journal is gone with the disk: it follows, and signs nothing any more.
    fn empty_disk(&mut self) -> Vec<Millis> {
        let one = |_| {
            self.cluster.kill(&[LAST]);
            fs::remove_dir_all(journal::folder(&self.cluster.replica_file(LAST))).expect("it is there");
            let server = self.server.as_ref().expect("it runs");
            self.runtime.block_on(async {
                let mut admin = PgConnection::connect(&server.url("postgres")).await.expect("it runs");
                let drop = sqlx::raw_sql("DROP DATABASE quorate_r3 WITH (FORCE)");
                drop.execute(&mut admin).await.expect("it was there");
                server.ensure_database("quorate_r3").await.expect("it is gone");
            });
            let newest = self.height(0);
            self.cluster.start_again(LAST);
            self.until(LAST, |status| status.height.number() >= newest)
        };
        (0..MEASURED_LONGER).map(one).collect()
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        drop(self.client.take().map(Client::end));
    }
}

/// How long a replica takes from its start until it has read a long journal, without a database.
fn restarts_with_a_history() -> Vec<Millis> {
    let (_turn, folder) = (harness::cluster::turn(), harness::cluster::folder());
    let port = harness::cluster::free_ports(2 * 4);
    let address = |offset: u16| SocketAddr::from(([127, 0, 0, 1], port + offset));
    let replica = |place: u16| ReplicaPlace {
        peer: address(2 * place),
        http: address(2 * place + 1),
        database_url_file: None,
    };
    let policies = PolicyFile::parse("example", POLICY_EXAMPLE).expect("the example is correct");
    let founding = Founding {
        folder: folder.path().to_owned(),
        policies,
        speed: Speed::REAL_TIME,
        replicas: (0..4).map(replica).collect(),
        now: wall_clock(),
    };
    let (layout, ..) = found(&founding).expect("the folder is empty");
    let files: Vec<PathBuf> = (0..REPLICAS).map(|place| layout.replica_config(place)).collect();
    history::write(&files.iter().map(PathBuf::as_path).collect::<Vec<&Path>>(), HISTORY_BLOCKS);
    let measure = |_| {
        let watch = Stopwatch::start();
        let mut replica = harness::cluster::quorate();
        replica.args(["run", "--config"]).arg(&files[0]).stderr(Stdio::null());
        let mut replica = replica.spawn().expect("the program starts");
        let has_read = harness::poll(|| {
            let status: StatusSnapshot =
                serde_json::from_slice(&http::get(address(1), "/v1/status")?).ok()?;
            (status.height.number() >= HISTORY_BLOCKS).then_some(())
        });
        let taken = watch.elapsed();
        let _ = replica.kill();
        let _ = replica.wait();
        has_read.expect("it reads its journal");
        taken
    };
    (0..MEASURED_LONGER).map(measure).collect()
}
