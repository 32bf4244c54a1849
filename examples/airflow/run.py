"""A real incident of a real Airflow, and what quorate does about it. `just airflow` runs this.

    python3 examples/airflow/run.py QUORATE FOLDER

QUORATE is the program; FOLDER keeps the venv between runs, and logs and documents of the last one. A burst of
tasks meets a pool of three slots; four replicas see the backlog in Airflow's own metrics and certify a plan; the
agent gives the pool more slots; the backlog drains; once it is quiet the pool gets its three slots back. Then a
source breaks and comes back: another plan lets the tasks run again that failed meanwhile. One more that fails right
after it, while the policy rests, is retried when the rest is over. Every step is checked by reading Airflow's API, and
everything that was started is stopped.
"""

import base64
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from lab import HERE, Children, Lab, LabError, listens, say

POOL_TARGET = "airflow/extract_pool"
TASKS_TARGET = "airflow/flaky_ingest/failed_tasks"
POOL = "/api/v2/pools/extract_pool"
INGEST = "/api/v2/dags/flaky_ingest"
SLOTS = 3
TASKS = 60
SECONDS_EACH = 8
FAILING_RUNS = 3


class Run:
    def __init__(self, quorate: Path, folder: Path) -> None:
        self.quorate, self.folder = quorate, folder
        self.cluster = folder / "run/quorate"
        self.lab = Lab(folder, "")
        self.programs = Children(folder / "run/logs")
        self.began = time.monotonic()

    def stop(self) -> None:
        self.programs.stop()
        self.lab.stop()

    def until(self, what: str, done, seconds: float = 600):
        def look():
            self.programs.check()
            return done()

        return self.lab.until(what, look, seconds)

    def events(self, name: str, event: str) -> list:
        """All events of a kind that a program wrote to its log, oldest first."""
        found = []
        for line in (self.folder / f"run/logs/{name}.log").read_text(errors="replace").splitlines():
            if line.startswith("{"):
                told = json.loads(line)
                if told.get("event") == event:
                    found.append(told)
        return found

    # Starting

    def start_cluster(self) -> dict:
        say("starting four replicas, their Postgres and the relay")
        ready = self.cluster / "ready.json"
        self.cluster.mkdir(parents=True)
        base_port = next(port for port in range(12_000, 32_000, 16)
                         if not any(listens(port + place) for place in range(9)))
        self.programs.start("quorate-dev", [
            self.quorate, "dev", "--no-agents", "--data-dir", self.cluster, "--policy", HERE / "policy.toml",
            "--base-port", base_port, "--otlp-port", base_port + 8, "--ready-file", ready,
        ])
        self.until("the replicas are ready", ready.exists)
        return json.loads(ready.read_text())

    def own_folder(self, target: str) -> Path:
        return self.cluster / "agents" / target.replace("/", "_")

    def start_agent(self, cluster: dict, target: str, *which) -> None:
        say(f"starting the agent of {target}")
        own = self.own_folder(target)
        replicas = [part for url in cluster["replicas"] for part in ("--replica", url)]
        self.programs.start(own.name, [
            self.quorate, "-o", "jsonl", "agent", "run", "--root", cluster["root"], *replicas, "--target", target,
            "--key", own / "agent.key", "--state-dir", own / "state", "--envelopes", own / "envelopes",
            "--actuator", "airflow", "--airflow", self.lab.url, *which,
            "--airflow-user", self.lab.user, "--airflow-password-file", self.lab.password_file,
        ])
        self.until("the agent has started", lambda: self.events(own.name, "started"))

    # The incident

    def pool(self) -> dict:
        return self.lab.call("GET", POOL)

    def waiting(self) -> int:
        """Tasks of the burst that have not begun."""
        asked = "&".join(f"state={state}" for state in ("scheduled", "queued", "no_status"))
        tasks = f"/api/v2/dags/burst_fanout/dagRuns/~/taskInstances?{asked}&pool=extract_pool&limit=1"
        return self.lab.call("GET", tasks)["total_entries"]

    def watch(self, what: str, done, seconds: float = 900) -> float:
        """Waits, and says every ten seconds how the pool is; returns the seconds since the burst."""
        said = 0.0

        def look() -> bool:
            nonlocal said
            pool = self.pool()
            if time.monotonic() - said >= 10:
                said = time.monotonic()
                print(f"   {self.since():5.0f} s: {pool['slots']} slots, {pool['running_slots']} running, "
                      f"{pool['queued_slots'] + pool['scheduled_slots']} waiting", flush=True)
            return done(pool)

        self.until(what, look, seconds)
        return self.since()

    def since(self) -> float:
        return time.monotonic() - self.began

    def quorate_says(self, *arguments) -> str:
        command = [str(part) for part in (self.quorate, *arguments)]
        answer = subprocess.run(command, capture_output=True, text=True)
        if answer.returncode != 0:
            raise LabError(f"`{' '.join(command[1:3])}` failed ({answer.returncode}): {answer.stderr.strip()}")
        return answer.stdout.strip()

    def verify(self, target: str) -> dict:
        """Checks the newest plan of a target from its documents alone; returns the plan."""
        envelopes = self.own_folder(target) / "envelopes"
        documents = [part for name in ("root", "plan", "head")
                     for part in (f"--{name}", envelopes / f"{name}.json")]
        print(self.quorate_says("verify", *documents), flush=True)
        receipt = json.loads(decoded(envelopes / "receipt.json"))
        if receipt["outcome"]["kind"] != "applied":
            raise LabError(f"the agent's receipt says {receipt['outcome']}, not applied")
        return json.loads(decoded(envelopes / "plan.json"))

    def run(self) -> None:
        self.lab.install()
        self.lab.prepare()
        cluster = self.start_cluster()
        self.lab.otlp = cluster["otlp"]
        self.lab.start()
        self.lab.call("POST", "/api/v2/pools", {"name": "extract_pool", "slots": SLOTS,
                                                "description": "for the lab", "include_deferred": False})
        self.start_agent(cluster, POOL_TARGET, "--airflow-pool", "extract_pool")
        self.start_agent(cluster, TASKS_TARGET, "--airflow-failed-tasks", "flaky_ingest")
        say("waiting until the replicas see the pool in Airflow's metrics")
        self.until("a window holds Airflow's series", lambda: any(
            told.get("series", 0) >= 2 for told in self.events_of_replicas("window_final")))

        summary = [*self.backlog(), *self.failures()]
        say("summary")
        for line in summary:
            print(f"   {line}", flush=True)

    def backlog(self) -> list:
        """A burst into a small pool; returns lines of the summary."""
        say(f"the first incident: {TASKS} tasks of {SECONDS_EACH} s at once into {SLOTS} slots")
        receipts = len(self.events("airflow_extract_pool", "receipt_sent"))
        self.began = time.monotonic()
        self.lab.call("POST", "/api/v2/dags/burst_fanout/dagRuns", {
            "logical_date": None, "dag_run_id": "incident", "conf": {"n": TASKS, "seconds": SECONDS_EACH}})
        seen = self.watch("the backlog is there", lambda pool: pool["scheduled_slots"] > 20)
        changed = self.watch("the pool has more slots", lambda pool: pool["slots"] > SLOTS)
        left = self.waiting()
        say(f"the pool has {self.pool()['slots']} slots, as Airflow's API says")
        self.until_receipts("airflow_extract_pool", receipts + 1)
        plan = self.verify(POOL_TARGET)
        drained = self.watch("the backlog is drained", lambda pool: pool["scheduled_slots"] == 0
                             and pool["queued_slots"] == 0 and self.waiting() == 0)
        say("drained; waiting until the quiet gives the pool its old slots back")
        back = self.watch("the pool has its old slots", lambda pool: pool["slots"] == SLOTS)
        self.until_receipts("airflow_extract_pool", receipts + 2)
        second = self.verify(POOL_TARGET)
        rate = 60 * left / (drained - changed)
        return [
            "seconds after the burst:",
            f"{seen:5.0f}  more than 20 tasks wait",
            f"{changed:5.0f}  the pool has {plan['desired']['slots']} slots by plan {plan['seq']}, "
            f"certified for a pool of {plan['preconditions']['state']['slots']}; {left} tasks wait",
            f"{drained:5.0f}  nothing waits any more: {rate:.0f} tasks a minute",
            f"{back:5.0f}  the pool has {second['desired']['slots']} slots again by plan {second['seq']}",
        ]

    def failures(self) -> list:
        """Runs that fail while their source is broken; returns lines of the summary."""
        say(f"the second incident: {FAILING_RUNS} runs fail, because their source is broken")
        receipts = len(self.events("airflow_flaky_ingest_failed_tasks", "receipt_sent"))
        broken = lambda word: self.lab.call("PATCH", "/api/v2/variables/source_is_broken?update_mask=value",
                                            {"key": "source_is_broken", "value": word})
        start = lambda run: self.lab.call("POST", f"{INGEST}/dagRuns", {"logical_date": None, "dag_run_id": run})
        self.lab.call("POST", "/api/v2/variables", {"key": "source_is_broken", "value": "yes"})
        self.began = time.monotonic()
        for number in range(FAILING_RUNS):
            start(f"broken__{number}")
        tasks = f"{INGEST}/dagRuns/~/taskInstances?limit=1&state="
        count = lambda state: self.lab.call("GET", tasks + state)["total_entries"]
        self.until("all runs failed", lambda: count("failed") == FAILING_RUNS)
        failed = self.since()
        say("the source works again; waiting until a plan lets the failed tasks run again")
        broken("no")
        self.until("no task is failed any more", lambda: count("failed") == 0)
        cleared = self.since()
        self.until_receipts("airflow_flaky_ingest_failed_tasks", receipts + 1)
        plan = self.verify(TASKS_TARGET)
        self.until("all runs succeeded", lambda: count("success") == 2 * FAILING_RUNS)
        succeeded = self.since()

        say("one more run fails, while the policy rests; nothing fails after it")
        broken("yes")
        start("broken__late")
        self.until("the late run failed", lambda: count("failed") == 1)
        late = self.since()
        broken("no")
        self.until("no task is failed any more", lambda: count("failed") == 0)
        again = self.since()
        self.until_receipts("airflow_flaky_ingest_failed_tasks", receipts + 2)
        second = self.verify(TASKS_TARGET)
        self.until("the late run succeeded", lambda: count("success") == 2 * FAILING_RUNS + 2)
        return [
            "seconds after the runs began:",
            f"{failed:5.0f}  {FAILING_RUNS} tasks have failed",
            f"{cleared:5.0f}  none is failed any more by plan {plan['seq']}, of at most {plan['limits']['most']}",
            f"{succeeded:5.0f}  all {FAILING_RUNS} runs succeeded",
            f"{late:5.0f}  one more task has failed",
            f"{again:5.0f}  it is not failed any more by plan {second['seq']}, "
            f"{(second['issued_at'] - plan['issued_at']) / 1000:.0f} s after the first",
        ]

    def until_receipts(self, agent: str, count: int) -> None:
        self.until("the agent's receipt is sent", lambda: len(self.events(agent, "receipt_sent")) >= count)

    def events_of_replicas(self, event: str) -> list:
        path = self.cluster / "events.jsonl"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        # The last line may be half written.
        return [told for line in lines if line.endswith("}") and (told := json.loads(line)).get("event") == event]


def decoded(path: Path) -> str:
    return base64.b64decode(json.loads(path.read_text())["payload"]).decode()


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    quorate, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    if not quorate.is_file():
        print(f"airflow: there is no program {quorate}\n  next: cargo build --bin quorate", file=sys.stderr)
        return 2
    run = Run(quorate, folder)
    try:
        run.run()
        return 0
    except (LabError, OSError) as error:
        print(f"airflow: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        # What stops everything is not stopped itself.
        for sign in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sign, signal.SIG_IGN)
        say("stopping everything")
        run.stop()
        print(f"logs and documents: {run.folder}/run", flush=True)


if __name__ == "__main__":
    sys.exit(main())
