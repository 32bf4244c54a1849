//! A cluster of four replicas under `quorate dev`, in a folder of its own and on ports of its own.
//!
//! One runs at a time in a test binary: together they would only take each other's processor. Invariant: when a
//! [`Cluster`] is dropped, all its processes have ended.

use std::{
    fs::{self, File, Permissions},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
};

use base64::Engine as _;
use quorate::{
    service::{clock::wall_clock, founding::Layout, lifecycle::END_WITH_PARENT, status::StatusSnapshot},
    types::Digest,
};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    http, poll,
    processes::{self, Signal},
    telemetry,
};

/// How many replicas a cluster has; it bears one fault.
pub(crate) const REPLICAS: usize = 4;

/// The pool that the example policy watches and acts on.
pub(crate) const TARGET: &str = "airflow/extract_pool";

/// The name of its agent's process.
pub(crate) const AGENT: &str = "agent-airflow_extract_pool";

/// A wait of ten seconds becomes half a second; shorter windows would measure the machine.
const SPEED: &str = "20";

/// One cluster at a time.
static TURN: Mutex<()> = Mutex::new(());

/// Where to look for ports: below those that the system gives to clients.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// What a cluster is started with beside the usual.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// How many replicas instead of [`REPLICAS`].
    pub(crate) replicas: Option<usize>,
    /// The example policy with these texts replaced.
    pub(crate) policy: Vec<(&'static str, &'static str)>,
    /// Where all processes post traces.
    pub(crate) otlp_traces: Option<String>,
    /// Whether the test starts the target's agent itself.
    pub(crate) no_agents: bool,
    /// More flags.
    pub(crate) more: Vec<String>,
}

/// The command `quorate` of this build.
pub(crate) fn quorate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    command.stdin(Stdio::null());
    command
}

/// A folder in which a private Postgres may live: its server runs as another user when tests run as root.
pub(crate) fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("quorate-faults-").tempdir_in("/var/tmp");
    let folder = folder.expect("a folder in /var/tmp can be made");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("it is ours");
    folder
}

/// The turn of one cluster in this test binary.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    // A test that failed has ended its cluster all the same.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first of so many ports in a row that nobody listens on.
pub(crate) fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let spread = u16::try_from((u64::from(std::process::id()) * 64 + wall_clock().as_millis()) % 16_000);
    let begin = PORTS.start + spread.expect("it is below 16,000");
    let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    for _ in 0..500 {
        let first = (begin + NEXT.fetch_add(count, Ordering::Relaxed)).min(PORTS.end - count);
        if (first..first + count).all(is_free) {
            return first;
        }
    }
    panic!("no {count} free ports in a row");
}

/// Flags with free ports: two for each replica, and one for the relay.
pub(crate) fn port_flags(replicas: usize) -> [String; 4] {
    let count = u16::try_from(2 * replicas + 1).expect("clusters are small");
    let base_port = free_ports(count);
    let otlp_port = base_port + count - 1;
    ["--base-port".to_owned(), base_port.to_string(), "--otlp-port".to_owned(), otlp_port.to_string()]
}

/// A running cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    folder: Option<TempDir>,
    replicas: usize,
    dev: Child,
    ready: Value,
    /// What stands in the places of replicas that were killed.
    successors: Vec<(usize, Child)>,
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Founds a cluster and waits until all of it runs.
    pub(crate) fn start(options: &Options) -> Self {
        let (turn, folder) = (turn(), folder());
        let replicas = options.replicas.unwrap_or(REPLICAS);
        let mut arguments: Vec<String> = ["--speed", SPEED, "--replicas"].map(str::to_owned).to_vec();
        arguments.push(replicas.to_string());
        arguments.extend(port_flags(replicas));
        if !options.policy.is_empty() {
            arguments.extend(["--policy".to_owned(), policy(folder.path(), &options.policy)]);
        }
        if let Some(url) = &options.otlp_traces {
            arguments.extend(["--otlp-traces".to_owned(), url.clone()]);
        }
        if options.no_agents {
            arguments.push("--no-agents".to_owned());
        }
        arguments.extend(options.more.iter().cloned());
        Self::start_in(turn, folder, replicas, &arguments)
    }

    /// Starts the cluster of a folder, or founds it there, and waits until all of it runs.
    pub(crate) fn start_in(
        turn: MutexGuard<'static, ()>,
        folder: TempDir,
        replicas: usize,
        arguments: &[String],
    ) -> Self {
        let (dev, ready) = start_dev(folder.path(), arguments);
        Self { folder: Some(folder), replicas, dev, ready, successors: Vec::new(), _turn: turn }
    }

    /// Ends the cluster in order.
    pub(crate) fn end(&mut self) {
        processes::signal(self.dev(), Signal::INT);
        assert_eq!(self.ended().code(), Some(0), "{}", self.text("dev.err"));
    }

    /// The text of a file in the cluster's folder.
    pub(crate) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.folder().join(name)).unwrap_or_default()
    }

    /// Starts the cluster's `quorate dev` again after it ended.
    pub(crate) fn resume(&mut self) {
        self.resume_with(&[]);
    }

    /// The same with flags.
    pub(crate) fn resume_with(&mut self, arguments: &[String]) {
        let (dev, ready) = start_dev(self.folder(), arguments);
        (self.dev, self.ready) = (dev, ready);
    }

    /// Where everything of the cluster lies.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.as_ref().expect("it is there until the cluster is dropped").path()
    }

    /// A replica's configuration.
    pub(crate) fn replica_file(&self, place: usize) -> PathBuf {
        Layout::of(self.folder().to_owned()).replica_config(place)
    }

    /// The process of `quorate dev`.
    pub(crate) fn dev(&self) -> u32 {
        self.dev.id()
    }

    /// Every process that the cluster told of, and the one that told.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let told = self.ready["processes"].as_object().expect("it names processes by name");
        let told = told.values().filter_map(|pid| u32::try_from(pid.as_u64()?).ok());
        told.chain([self.dev.id()]).collect()
    }

    /// Waits for `quorate dev` to end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let status = poll(|| self.dev.try_wait().expect("it is a child"));
        self.require(status, "`quorate dev` to end")
    }

    /// Waits until the condition gives something.
    pub(crate) fn eventually<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> T {
        self.require(poll(look), what)
    }

    fn require<T>(&self, found: Option<T>, what: &str) -> T {
        found.unwrap_or_else(|| {
            let events = fs::read_to_string(self.folder().join("events.jsonl")).unwrap_or_default();
            let newest: Vec<&str> = events.lines().rev().take(12).collect();
            panic!(
                "waited in vain for {what}; see {}; newest events:\n{}",
                self.folder().display(),
                newest.join("\n")
            )
        })
    }

    /// Kills a replica as a failing machine would: without a warning, between any two instructions.
    pub(crate) fn kill(&mut self, places: &[usize]) {
        let pids: Vec<u32> = places.iter().map(|place| self.replica_process(*place)).collect();
        for pid in &pids {
            processes::signal(*pid, Signal::KILL);
        }
        self.successors.retain_mut(|(place, child)| {
            let killed = places.contains(place);
            if killed {
                child.wait().expect("it is a child");
            }
            !killed
        });
        self.eventually("killed replicas to end", || {
            pids.iter().all(|pid| !processes::runs(*pid)).then_some(())
        });
    }

    /// The process of a replica.
    pub(crate) fn replica_process(&self, place: usize) -> u32 {
        let successor = self.successors.iter().find(|(other, _)| *other == place);
        successor.map_or_else(
            || {
                let pid = self.ready["processes"][format!("r{place}")].as_u64();
                pid.and_then(|pid| u32::try_from(pid).ok()).expect("each replica has a process")
            },
            |(_, child)| child.id(),
        )
    }

    /// Starts a killed replica again with `quorate run`, as an operator would.
    pub(crate) fn restart(&mut self, place: usize) {
        self.start_again(place);
        self.eventually("a restarted replica to answer", || self.status(place));
    }

    /// The same, without waiting for it.
    pub(crate) fn start_again(&mut self, place: usize) {
        let mut command = quorate();
        command.args(["-o", "jsonl", "run", "--config"]).arg(self.replica_file(place));
        self.put_in_place(place, command);
    }

    /// Starts a program in the place of a killed replica.
    pub(crate) fn put_in_place(&mut self, place: usize, mut command: Command) {
        let log = |kind: &str| {
            let path = self.folder().join(format!("successor-r{place}.{kind}"));
            File::options().create(true).append(true).open(path).expect("the folder is ours")
        };
        command.env(END_WITH_PARENT, "1").stdin(Stdio::piped()).stdout(log("jsonl")).stderr(log("log"));
        let child = command.spawn().expect("the program starts");
        self.successors.push((place, child));
    }

    /// Waits until what was put into a place has ended by itself.
    pub(crate) fn successor_ended(&mut self, place: usize) -> ExitStatus {
        let at = self.successors.iter().position(|(other, _)| *other == place).expect("it was put there");
        let (_, mut child) = self.successors.remove(at);
        let status = poll(|| child.try_wait().expect("it is a child"));
        self.require(status, "a successor to end")
    }

    /// Ends all replicas in order, so that their journals can be read.
    pub(crate) fn end_replicas(&mut self) {
        let pids: Vec<u32> = (0..self.replicas).map(|place| self.replica_process(place)).collect();
        for pid in &pids {
            processes::signal(*pid, Signal::TERM);
        }
        for (_, mut child) in self.successors.drain(..) {
            child.wait().expect("it is a child");
        }
        self.eventually("replicas to end", || pids.iter().all(|pid| !processes::runs(*pid)).then_some(()));
    }

    /// Where a replica's API and door listen: its second port.
    pub(crate) fn http(&self, place: usize) -> SocketAddr {
        let named = self.ready["replicas"][place].as_str().and_then(|url| url.strip_prefix("http://"));
        named.and_then(|address| address.parse().ok()).expect("each replica has an address")
    }

    /// Starts telemetry to all doors.
    pub(crate) fn engine(&self) -> telemetry::Engine {
        telemetry::Engine::start((0..self.replicas).map(|place| self.http(place)).collect())
    }

    /// What a replica says of itself; `None` when it does not answer.
    pub(crate) fn status(&self, place: usize) -> Option<StatusSnapshot> {
        serde_json::from_slice(&http::get(self.http(place), "/v1/status")?).ok()
    }

    /// Digests of the target's logged plans as a replica serves them, with their sequence numbers.
    pub(crate) fn plans(&self, place: usize) -> Option<Vec<(u64, Digest)>> {
        let body = http::get(self.http(place), &format!("/v1/plans?target={TARGET}"))?;
        let answer: Value = serde_json::from_slice(&body).ok()?;
        let plans = answer["plans"].as_array()?.iter();
        plans
            .map(|envelope| {
                let payload = base64::engine::general_purpose::STANDARD;
                let bytes = payload.decode(envelope["payload"].as_str()?).ok()?;
                let plan: Value = serde_json::from_slice(&bytes).ok()?;
                Some((plan["seq"].as_u64()?, Digest::of(&bytes)))
            })
            .collect()
    }

    /// All events of a kind that a process told to `quorate dev`, oldest first.
    pub(crate) fn events(&self, process: &str, event: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.folder().join("events.jsonl")).unwrap_or_default();
        // The last line may be half written.
        let all = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        all.filter(|line| line["process"] == process && line["event"] == event).collect()
    }

    /// The first event of a kind from a process that the condition holds for.
    pub(crate) fn told(&self, process: &str, event: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        self.eventually(&format!("{event} of {process}"), || {
            self.events(process, event).into_iter().find(|told| is_it(told))
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.dev.stdin.take());
        for (_, child) in &mut self.successors {
            // It may have ended by itself; then there is nothing left to end.
            let _ = child.kill();
            let _ = child.wait();
        }
        if poll(|| self.dev.try_wait().ok().flatten()).is_none() {
            let _ = self.dev.kill();
            let _ = self.dev.wait();
        }
        for pid in self.processes() {
            processes::signal(pid, Signal::KILL);
        }
        if std::thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            // Whoever looks into the failure finds logs, journals and events there.
            let _kept = folder.keep();
        }
    }
}

/// Writes the example policy with texts replaced; its path.
fn policy(folder: &Path, changes: &[(&str, &str)]) -> String {
    let example = include_str!("../../examples/policies/airflow.toml");
    let text = changes.iter().fold(example.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "the example policy says {from:?}");
        text.replace(from, to)
    });
    let path = folder.join("policy.toml");
    fs::write(&path, text).expect("the folder is ours");
    path.display().to_string()
}

/// Starts `quorate dev` and waits for its ready file.
fn start_dev(folder: &Path, arguments: &[String]) -> (Child, Value) {
    let ready_file = folder.join(READY);
    // One from an earlier start would be taken for the new one's.
    let _ = fs::remove_file(&ready_file);
    let mut dev = spawn_dev(folder, arguments);
    let ready = poll(|| match dev.try_wait().expect("it is a child") {
        Some(status) => Some(Err(status)),
        None => fs::read(&ready_file).ok().map(Ok),
    });
    match ready {
        Some(Ok(text)) => (dev, serde_json::from_slice(&text).expect("the ready file is JSON")),
        Some(Err(_)) | None => {
            drop(dev.stdin.take());
            let _ = dev.wait();
            panic!("no cluster: {}", fs::read_to_string(folder.join("dev.err")).unwrap_or_default())
        }
    }
}

/// The file in a cluster's folder that appears once all of it runs.
pub(crate) const READY: &str = "ready.json";

/// Starts `quorate dev` without waiting for anything.
pub(crate) fn spawn_dev(folder: &Path, arguments: &[String]) -> Child {
    let log = |name: &str| File::create(folder.join(name)).expect("the folder is ours");
    quorate()
        .args(["dev", "--data-dir"])
        .arg(folder)
        .arg("--ready-file")
        .arg(folder.join(READY))
        .args(arguments)
        .env(END_WITH_PARENT, "1")
        .stdin(Stdio::piped())
        .stdout(log("dev.out"))
        .stderr(log("dev.err"))
        .spawn()
        .expect("the binary starts")
}
