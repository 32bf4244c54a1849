//! Agents as real processes with a command as actuator: two on one target, killed in the middle of a change, and
//! stopped by a contradiction.

use std::{
    fmt::Write as _,
    fs::{self, File, Permissions},
    os::unix::{fs::PermissionsExt as _, process::ExitStatusExt as _},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use quorate::{
    knowledge::{
        plan::{Plan, Preconditions},
        receipt::{Outcome, Receipt, Refusal, VerifiedReceipt},
        root::VerifiedRoot,
    },
    service::{clock::Stopwatch, lifecycle::END_WITH_PARENT},
    types::{Cycle, Digest, Millis, PublicKey, SecretKey},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    fixture::{TARGET, agent_key, root, sealed_root, slots},
    replica::{Conduct, Quorum, Replica, plan_of_today},
};

/// A loaded machine is slow and no failure.
const PATIENCE: Millis = Millis::from_secs(90);

/// The target is a file. It is changed under a lock, only when it is not as wanted already, and each change is noted.
/// A file `kill-before` or `kill-after` kills the agent that runs the command, once, on that side of the change.
const ACTUATOR: &str = r#"
dir=$1 verb=$2
kill_agent() { if rm "$dir/$1" 2>/dev/null; then kill -KILL $PPID; exit 1; fi; }
case $verb in
read) cat "$dir/state"; exit ;;
apply) field=desired ;;
rollback) field=rollback ;;
esac
plan=$(cat)
wanted=$(printf '%s' "$plan" | sed -n 's/.*"'$field'":\({[^}]*}\).*/\1/p')
[ -n "$wanted" ] || exit 1
exec 9> "$dir/lock"
flock 9
kill_agent kill-before
if [ "$(cat "$dir/state")" != "$wanted" ]; then
    printf '%s' "$wanted" > "$dir/state.new" && mv "$dir/state.new" "$dir/state"
    printf '%s %s\n' "$verb" "$wanted" >> "$dir/changes"
fi
kill_agent kill-after
exit 0
"#;

/// A target that is a file, which begins with 3 slots, and the agents' folders beside it.
pub(crate) struct Site {
    folder: TempDir,
    target: String,
    cluster: Digest,
    agent: PublicKey,
}

impl Site {
    /// A site of the fixture's cluster.
    fn new() -> Self {
        Self::of(TARGET, &sealed_root(&root()), &agent_key())
    }

    /// A site of the cluster with this root.
    pub(crate) fn of(target: &str, root: &[u8], agent: &SecretKey) -> Self {
        let site = Self {
            folder: tempfile::tempdir().expect("a folder for the test"),
            target: target.to_owned(),
            cluster: VerifiedRoot::first(root).expect("it is well made").committee().cluster(),
            agent: agent.public(),
        };
        site.write("root.json", root);
        site.write("agent.key", format!("{}\n", Digest::from_bytes(agent.to_seed())).as_bytes());
        site.write("actuator.sh", ACTUATOR.as_bytes());
        site.write("state", br#"{"kind":"slots","slots":3}"#);
        fs::set_permissions(site.path("agent.key"), Permissions::from_mode(0o600)).expect("it is ours");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).expect("the folder is ours");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Every change of the target, oldest first.
    pub(crate) fn changes(&self) -> Vec<String> {
        self.read("changes").lines().map(str::to_owned).collect()
    }

    fn quorate(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        command.args(["-o", "jsonl", "agent"]).current_dir(self.folder.path());
        command
    }

    /// Starts an agent of this name, whose memory is its own.
    pub(crate) fn agent(&self, name: &str, replicas: &[String]) -> Process {
        let log = |kind: &str| {
            let path = self.path(&format!("{name}.{kind}"));
            File::options().create(true).append(true).open(path).expect("the folder is ours")
        };
        let mut command = self.quorate();
        command.args(["run", "--root", "root.json", "--key", "agent.key", "--target", &self.target]);
        command.args(["--state-dir", &format!("{name}.state"), "--envelopes", &format!("{name}.envelopes")]);
        command.args(["--stale-after", "9", "--clock-tolerance", "300"]);
        for replica in replicas {
            command.args(["--replica", replica]);
        }
        command.args(["--actuator", "exec", "--command", "/bin/sh", "--command-arg", "actuator.sh"]);
        command.arg("--command-arg").arg(self.folder.path());
        command.env(END_WITH_PARENT, "1").stdin(Stdio::piped()).stdout(log("jsonl")).stderr(log("log"));
        Process { child: command.spawn().expect("the binary starts"), name: name.to_owned() }
    }

    /// The first event of a kind from an agent that the condition holds for.
    pub(crate) fn told(&self, agent: &Process, event: &str, is_it: impl Fn(&Value) -> bool) -> Option<Value> {
        let text = self.read(&format!("{}.jsonl", agent.name));
        // The last line may be half written.
        let mut events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.find(|told| told["event"] == event && is_it(told))
    }

    /// The newest receipt that an agent has written down.
    pub(crate) fn receipt(&self, agent: &Process) -> Option<Receipt> {
        let envelope = fs::read(self.path(&format!("{}.envelopes/receipt.json", agent.name))).ok()?;
        let verified = VerifiedReceipt::verify(&envelope, &self.agent, self.cluster);
        Some(verified.expect("it is the agent's").receipt().clone())
    }

    pub(crate) fn eventually<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let watch = Stopwatch::start();
        while watch.elapsed() < PATIENCE {
            if let Some(found) = look() {
                return found;
            }
            // Between two looks at what another process does.
            thread::sleep(Duration::from_millis(50));
        }
        let mut logs = String::new();
        for entry in fs::read_dir(self.folder.path()).into_iter().flatten().flatten() {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            writeln!(logs, "--- {}\n{text}", entry.path().display()).expect("memory takes it");
        }
        panic!("waited in vain for {what}:\n{logs}");
    }
}

/// A running agent; it is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    name: String,
}

impl Process {
    fn ended(&mut self, site: &Site) -> ExitStatus {
        site.eventually("the agent to end", || self.child.try_wait().expect("it is a child"))
    }

    /// Asks it to end, as its parent's end does.
    pub(crate) fn stop(mut self, site: &Site) {
        drop(self.child.stdin.take());
        assert!(self.ended(site).success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn urls<const N: usize>(replicas: [&Replica; N]) -> [String; N] {
    replicas.map(Replica::url)
}

fn honest(quorum: &Quorum) -> [Replica; 3] {
    std::array::from_fn(|_| Replica::start(Conduct::Honest, quorum))
}

/// A plan with this number that takes the pool from so many slots to so many.
fn plan_from(seq: u64, from: u32, to: u32) -> Plan {
    Plan {
        seq: Cycle::new(seq),
        preconditions: Preconditions { state: slots(from) },
        desired: slots(to),
        rollback: slots(from),
        ..plan_of_today()
    }
}

#[test]
fn two_agents_on_one_target_change_it_once_in_effect_though_a_replica_lies() {
    let (site, quorum) = (Site::new(), Quorum::start());
    let [a, b, c] = honest(&quorum);
    for (conduct, seq, from, to) in [(Conduct::EndlessBody, 37, 3, 6), (Conduct::Redirect, 38, 6, 4)] {
        let liar = Replica::start(conduct, &quorum);
        let before = site.changes().len();
        let agents = ["one", "two"].map(|name| site.agent(name, &urls([&liar, &a, &b, &c])));
        quorum.publish(&plan_from(seq, from, to));
        let outcomes = agents.each_ref().map(|agent| {
            let receipt = || site.receipt(agent).filter(|receipt| receipt.seq == Cycle::new(seq));
            let receipt = site.eventually("a receipt", receipt);
            assert_eq!(receipt.after, slots(to), "both end in agreement");
            receipt.outcome
        });
        assert!(outcomes.contains(&Outcome::Applied {}), "{outcomes:?}");
        let agree = |outcome: &Outcome| matches!(outcome, Outcome::Applied {} | Outcome::Noop {});
        assert!(outcomes.iter().all(agree), "{outcomes:?}");
        let change = format!("apply {{\"kind\":\"slots\",\"slots\":{to}}}");
        assert_eq!(site.changes()[before..], [change], "once");
        for agent in agents {
            agent.stop(&site);
        }
    }
}

#[test]
fn an_agent_killed_on_either_side_of_the_change_ends_right_without_a_second_effect() {
    for (marker, changes) in [("kill-before", 0), ("kill-after", 1)] {
        let (site, quorum) = (Site::new(), Quorum::start());
        let [a, b, c] = honest(&quorum);
        site.write(marker, b"");
        quorum.publish(&plan_from(37, 3, 6));
        let mut agent = site.agent("agent", &urls([&a, &b, &c]));
        let ended = agent.ended(&site);
        assert_eq!(ended.signal(), Some(9), "{marker}: {ended}");
        assert_eq!(site.changes().len(), changes, "{marker}: at the moment of the kill");
        assert!(site.receipt(&agent).is_none(), "{marker}: nothing is known of it yet");

        let agent = site.agent("agent", &urls([&a, &b, &c]));
        let receipt = site.eventually("a receipt", || site.receipt(&agent));
        assert_eq!(receipt.outcome, Outcome::Applied {}, "{marker}");
        assert_eq!((receipt.before, receipt.after, receipt.counter), (slots(3), slots(6), 1), "{marker}");
        assert_eq!(site.changes(), [r#"apply {"kind":"slots","slots":6}"#], "{marker}: once");
        agent.stop(&site);
    }
}

#[test]
fn a_contradiction_ends_the_agent_at_every_start_until_it_is_cleared() {
    let (site, quorum) = (Site::new(), Quorum::start());
    let [a, b, c] = honest(&quorum);
    quorum.publish(&plan_from(37, 3, 6));
    let mut agent = site.agent("agent", &urls([&a, &b, &c]));
    site.eventually("a receipt", || site.receipt(&agent));
    quorum.publish(&plan_from(37, 3, 7));
    assert_eq!(agent.ended(&site).code(), Some(4));
    let told = site.told(&agent, "equivocation", |_| true).expect("it says so");
    let contradiction = told["contradiction"].as_str().expect("it names it").to_owned();
    let receipt = site.receipt(&agent).expect("it accounts for it");
    assert_eq!(receipt.outcome, Outcome::Refused { why: Refusal::Contradiction });

    quorum.publish(&plan_from(38, 6, 8));
    assert_eq!(
        site.agent("agent", &urls([&a, &b, &c])).ended(&site).code(),
        Some(4),
        "a restart changes nothing"
    );
    assert!(site.read("agent.log").contains("quorate agent clear"), "{}", site.read("agent.log"));
    assert_eq!(site.changes().len(), 1);

    let clear = |contradiction: &str| {
        let mut command = site.quorate();
        command.args(["clear", "--root", "root.json", "--target", TARGET, "--state-dir", "agent.state"]);
        command.args(["--contradiction", contradiction]).output().expect("the binary starts").status.code()
    };
    assert_eq!(clear(&"0".repeat(64)), Some(4));
    assert_eq!(clear(&contradiction), Some(0));
    for number in 1..=2 {
        let name = format!("agent.state/contradiction-{contradiction}-{number}.json");
        assert!(site.path(&name).exists(), "the documents stay");
    }
    let agent = site.agent("agent", &urls([&a, &b, &c]));
    let receipt = || site.receipt(&agent).filter(|receipt| receipt.seq == Cycle::new(38));
    assert_eq!(site.eventually("the next plan's receipt", receipt).outcome, Outcome::Applied {});
    assert_eq!(site.changes().len(), 2);
    agent.stop(&site);
}
