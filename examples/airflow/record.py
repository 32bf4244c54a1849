"""Records what a real Airflow answers to the calls of quorate's actuators, for the tests' recorded-answer server.

    python3 examples/airflow/record.py FOLDER OUTPUT.jsonl.gz

FOLDER is where `just airflow` keeps its venv. Each line of the output is one exchange with its name; the first
says where they come from. Tokens, machine names and paths are replaced; nothing else is.
"""

import base64
import gzip
import hashlib
import hmac
import json
import re
import signal
import sys
import time
from pathlib import Path

from lab import HERE, Lab, free_port, say

ORIGIN = (
    "Answers of Apache Airflow 3.3.2 (api-server, scheduler and dag-processor of examples/airflow/lab.py, "
    "LocalExecutor, Postgres 15, CPython 3.11, Debian 12), recorded by this project on {date} with "
    "examples/airflow/record.py. Tokens, machine names and paths are replaced. Licence: the project's own."
)
POOL = {"name": "extract_pool", "slots": 3, "description": "for the lab", "include_deferred": False}


class Recorder:
    def __init__(self, lab: Lab) -> None:
        self.lab, self.lines = lab, []

    def note(self, name: str, method: str, path: str, body=None, token=None):
        status, media_type, answer = self.lab.request(method, path, body, token)
        text = self.scrub(answer.decode())
        if body is not None and "password" in body:
            body = body | {"password": "(password)"}
        self.lines.append({"name": name, "method": method, "path": path, "body": body,
                           "status": status, "type": media_type, "answer": text})
        say(f"{name}: {method} {path} -> {status}")
        return json.loads(answer) if answer else None

    def scrub(self, text: str) -> str:
        text = text.replace(str(HERE / "dags"), "/opt/airflow/dags")
        text = re.sub(r'"access_token":"[^"]*"', '"access_token":"recorded-token"', text)
        text = re.sub(r'"hostname":"[^"]*"', '"hostname":"localhost"', text)
        return re.sub(r'"file_token":"[^"]*"', '"file_token":"recorded"', text)


def expired(lab: Lab) -> str:
    """The lab's token with its times moved a day back, signed as Airflow signs."""
    def part(value) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    header, claims, _ = lab.token.split(".")
    header, claims = (json.loads(base64.urlsafe_b64decode(piece + "==")) for piece in (header, claims))
    for time_of in ("exp", "iat", "nbf"):
        claims[time_of] -= 2 * 24 * 3600
    digest = {"HS256": hashlib.sha256, "HS512": hashlib.sha512}[header["alg"]]
    signed = f"{part(header)}.{part(claims)}"
    signature = hmac.new(lab.jwt_secret.encode(), signed.encode(), digest).digest()
    return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def record(lab: Lab) -> list:
    recorder = Recorder(lab)
    note = recorder.note

    note("token", "POST", "/auth/token", {"username": lab.user, "password": lab.password}, token="")
    note("token_wrong_password", "POST", "/auth/token", {"username": lab.user, "password": "wrong"}, token="")
    note("no_token", "GET", "/api/v2/pools/extract_pool", token="")
    note("token_expired", "GET", "/api/v2/pools/extract_pool", token=expired(lab))
    note("token_invalid", "GET", "/api/v2/pools/extract_pool", token="not.a.token")

    pool = "/api/v2/pools/extract_pool"
    note("pool_missing", "GET", pool)
    note("pool_created", "POST", "/api/v2/pools", POOL)
    note("pool_created_again", "POST", "/api/v2/pools", POOL)
    note("pool", "GET", pool)
    patch = f"{pool}?update_mask=slots"
    note("pool_patch_slots_alone", "PATCH", patch, {"slots": 6})
    note("pool_patch_without_include_deferred", "PATCH", patch, {"pool": "extract_pool", "slots": 6})
    note("pool_patch_without_pool", "PATCH", patch, {"slots": 6, "include_deferred": False})
    note("pool_patch_below_minus_one", "PATCH", patch,
         {"pool": "extract_pool", "slots": -2, "include_deferred": False})
    note("pool_patch", "PATCH", patch, {"pool": "extract_pool", "slots": 6, "include_deferred": False})
    note("pool_patch_unlimited", "PATCH", patch, {"pool": "extract_pool", "slots": -1, "include_deferred": False})
    note("pool_unlimited", "GET", pool)
    note("default_pool", "GET", "/api/v2/pools/default_pool")
    note("default_pool_patch_slots_alone", "PATCH", "/api/v2/pools/default_pool?update_mask=slots", {"slots": 64})
    note("pool_patch_missing", "PATCH", "/api/v2/pools/none?update_mask=slots",
         {"pool": "none", "slots": 6, "include_deferred": False})

    dag = "/api/v2/dags/flaky_ingest"
    note("dag", "GET", dag)
    note("dag_missing", "GET", "/api/v2/dags/none")
    note("dag_patch_missing", "PATCH", "/api/v2/dags/none?update_mask=is_paused", {"is_paused": True})
    note("dag_patch_other_field", "PATCH", f"{dag}?update_mask=max_active_runs", {"max_active_runs": 1})
    note("dag_patch_pause", "PATCH", f"{dag}?update_mask=is_paused", {"is_paused": True})
    note("dag_paused", "GET", dag)
    note("dag_patch_unpause", "PATCH", f"{dag}?update_mask=is_paused", {"is_paused": False})

    lab.call("POST", "/api/v2/variables", {"key": "source_is_broken", "value": "yes"})
    run = {"logical_date": None, "dag_run_id": "manual__one"}
    note("run_without_logical_date", "POST", f"{dag}/dagRuns", {"dag_run_id": "manual__one"})
    note("run", "POST", f"{dag}/dagRuns", run)
    note("run_again", "POST", f"{dag}/dagRuns", run)
    lab.call("POST", f"{dag}/dagRuns", run | {"dag_run_id": "manual__two"})
    failed = f"{dag}/dagRuns/~/taskInstances?state=failed"
    lab.until("two tasks failed", lambda: lab.call("GET", failed)["total_entries"] == 2)
    time.sleep(5)
    note("failed", "GET", f"{failed}&end_date_gte=2026-01-01T00:00:00Z&end_date_lte=2100-01-01T00:00:00Z&limit=100")
    note("failed_before", "GET", f"{failed}&end_date_lte=2026-01-01T00:00:00Z&limit=100")
    note("failed_dag_missing", "GET", "/api/v2/dags/none/dagRuns/~/taskInstances?state=failed&limit=100")
    clear = f"{dag}/clearTaskInstances"
    asked = {"only_failed": True, "dag_run_id": "manual__one", "reset_dag_runs": True}
    note("clear_without_dry_run", "POST", clear, asked)
    note("failed_after_clear_without_dry_run", "GET", f"{failed}&limit=100")
    note("clear_run_missing", "POST", clear, asked | {"dry_run": False, "dag_run_id": "none"})
    note("clear_dag_missing", "POST", "/api/v2/dags/none/clearTaskInstances", asked | {"dry_run": False})
    # Runs that were started by hand have no logical date, so a window of dates passes them by.
    note("clear_by_window_finds_none", "POST", clear,
         {"dry_run": True, "only_failed": True, "start_date": "2026-01-01T00:00:00Z", "reset_dag_runs": True})
    tried = asked | {"dry_run": True, "include_downstream": True}
    note("clear_dry_run", "POST", clear, tried | {"task_ids": ["fetch"]})
    note("clear_dry_run_of_no_task", "POST", clear, tried | {"task_ids": ["none"]})
    lab.call("PATCH", "/api/v2/variables/source_is_broken?update_mask=value",
             {"key": "source_is_broken", "value": "no"})
    note("clear", "POST", clear, asked | {"dry_run": False, "task_ids": ["fetch", "store"]})
    note("failed_after_clear", "GET", f"{failed}&limit=100")

    # One index of a mapped task, in a run that was stopped by hand.
    burst = "/api/v2/dags/burst_fanout"
    lab.call("PATCH", f"{burst}?update_mask=is_paused", {"is_paused": False})
    run = {"logical_date": None, "dag_run_id": "manual__burst", "conf": {"n": 3, "seconds": 600}}
    lab.call("POST", f"{burst}/dagRuns", run)
    crunching = f"{burst}/dagRuns/manual__burst/taskInstances?task_id=crunch&state="
    lab.until("three tasks run", lambda: lab.call("GET", f"{crunching}running")["total_entries"] == 3)
    lab.call("PATCH", f"{burst}/dagRuns/manual__burst?update_mask=state", {"state": "failed"})
    lab.until("three tasks failed", lambda: lab.call("GET", f"{crunching}failed")["total_entries"] == 3)
    note("clear_dry_run_of_one_index", "POST", f"{burst}/clearTaskInstances",
         tried | {"dag_run_id": "manual__burst", "task_ids": [["crunch", 1]]})
    return recorder.lines


def main() -> None:
    folder, output = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    lab = Lab(folder, f"http://127.0.0.1:{free_port()}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        lab.install()
        lab.prepare()
        lab.start()
        lines = record(lab)
    finally:
        lab.stop()
    origin = {"origin": ORIGIN.format(date=time.strftime("%Y-%m-%d", time.gmtime()))}
    text = "".join(json.dumps(line) + "\n" for line in [origin, *lines])
    output.write_bytes(gzip.compress(text.encode(), mtime=0))
    say(f"{len(lines)} exchanges in {output}")


if __name__ == "__main__":
    main()
