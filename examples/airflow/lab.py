"""A real Airflow for a while: a venv from PyPI, a private Postgres, scheduler, DAG processor and API server.

It knows nothing of quorate but the address that metrics go to. Whatever it starts ends with it: each process
gets SIGTERM when this one ends, however that ends (Linux only).
"""

import ctypes
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
PR_SET_PDEATHSIG = 1
# A cold start of Airflow on a loaded machine of two cores has taken 90 s.
START_SECONDS = 600


class LabError(Exception):
    """Why the lab cannot go on; the text says what to do next."""


def say(text: str) -> None:
    print(f"== {text}", flush=True)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def tail(path: Path, lines: int = 12) -> str:
    text = path.read_text(errors="replace") if path.exists() else ""
    return "\n".join("    " + line for line in text.splitlines()[-lines:])


class Children:
    """The processes that were started, ended in the reverse order."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.running: list[tuple[str, subprocess.Popen]] = []

    def start(self, name: str, command: list, user=None, **more) -> subprocess.Popen:
        def before() -> None:
            os.setsid()
            if user is not None:
                os.setgroups([])
                os.setgid(user.pw_gid)
                os.setuid(user.pw_uid)
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

        with open(self.logs / f"{name}.log", "ab") as log:
            child = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=before, **more,
            )
        self.running.append((name, child))
        return child

    def check(self) -> None:
        for name, child in self.running:
            if child.poll() is not None:
                log = self.logs / f"{name}.log"
                raise LabError(f"{name} ended with code {child.returncode}; {log} ends with\n{tail(log)}")

    def stop(self) -> None:
        for name, child in reversed(self.running):
            # Postgres takes SIGINT for "disconnect everybody and end now".
            gentle = signal.SIGINT if name == "postgres" else signal.SIGTERM
            for sign, seconds in ((gentle, 20), (signal.SIGKILL, 10)):
                try:
                    if sign == signal.SIGKILL or child.poll() is None:
                        os.killpg(child.pid, sign)
                    child.wait(seconds)
                except (ProcessLookupError, subprocess.TimeoutExpired):
                    continue
        self.running.clear()


class Lab:
    """The running Airflow. `folder` keeps the venv between runs and everything else for one run."""

    def __init__(self, folder: Path, otlp: str) -> None:
        self.folder, self.otlp = folder, otlp
        self.venv, self.run = folder / "venv", folder / "run"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.user, self.password = "admin", secrets.token_urlsafe(18)
        self.password_file = self.run / "airflow-password"
        self.children = Children(self.run / "logs")
        self.token = ""
        self.jwt_secret = secrets.token_hex(32)

    # Installing

    def install(self) -> None:
        """Makes the venv, once per requirements file."""
        wanted = (HERE / "requirements.txt").read_text()
        done = self.venv / "installed.txt"
        if done.exists() and done.read_text() == wanted:
            say(f"Airflow is installed in {self.venv}")
            return
        say(f"installing Airflow from PyPI into {self.venv} (once; some minutes)")
        shutil.rmtree(self.venv, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "pip.log"
        with open(log, "wb") as output:
            for command in (
                [sys.executable, "-m", "venv", self.venv],
                [self.venv / "bin/pip", "install", "--no-input", "--requirement", HERE / "requirements.txt"],
            ):
                if subprocess.run(["nice", *map(str, command)], stdout=output, stderr=output).returncode != 0:
                    raise LabError(
                        f"installing failed; {log} ends with\n{tail(log)}\n"
                        "  next: is PyPI reachable, and is Python 3.10 to 3.13 with venv here?"
                    )
        done.write_text(wanted)

    # Starting

    def prepare(self) -> None:
        """Makes an empty folder for one run; what an earlier one left there goes."""
        shutil.rmtree(self.run, ignore_errors=True)
        (self.run / "logs").mkdir(parents=True)
        # Postgres may run as another user, who passes through here.
        self.folder.chmod(0o755)

    def start(self) -> None:
        """Starts everything and returns once the API answers and the DAGs are known."""
        database = self._start_postgres()
        environment = self._environment(database)
        airflow = self.venv / "bin/airflow"
        say("preparing Airflow's database")
        log = self.run / "logs/migrate.log"
        with open(log, "wb") as output:
            migrated = subprocess.run([airflow, "db", "migrate"], env=environment, stdout=output, stderr=output)
        if migrated.returncode != 0:
            raise LabError(f"`airflow db migrate` failed; {log} ends with\n{tail(log)}")
        say(f"starting Airflow at {self.url} (logs in {self.run}/logs)")
        for name, command in (
            ("api-server", ["api-server", "--port", self.port, "--host", "127.0.0.1", "--workers", 1]),
            ("scheduler", ["scheduler"]),
            ("dag-processor", ["dag-processor"]),
        ):
            self.children.start(name, [airflow, *command], env=environment, cwd=self.run)
        self.until("Airflow's API answers", self._log_in)
        self.until("the scheduler beats", self._scheduler_is_healthy)
        self.until("the DAGs are known", self._dags_are_known)

    def stop(self) -> None:
        self.children.stop()

    def _start_postgres(self) -> str:
        say("starting a private Postgres")
        found = shutil.which("initdb") or next(
            (str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)), None
        )
        if found is None:
            raise LabError("no Postgres server is installed\n  next: apt-get install -y postgresql")
        binaries, data, port = Path(found).parent, self.run / "postgres", free_port()
        user = None
        data.mkdir()
        if os.geteuid() == 0:
            # Postgres refuses to run as root.
            user = pwd.getpwnam("nobody")
            os.chown(data, user.pw_uid, user.pw_gid)
        password = secrets.token_urlsafe(18)
        word = self.run / "postgres-password"
        word.write_text(password)
        if user is not None:
            os.chown(word, user.pw_uid, user.pw_gid)
        word.chmod(0o600)
        setup = self.children.start(
            "initdb",
            [binaries / "initdb", "--pgdata", data, "--username=airflow", "--auth=scram-sha-256",
             f"--pwfile={word}", "--no-sync"],
            user=user, cwd="/",
        )
        self.children.running.pop()
        if setup.wait(START_SECONDS) != 0:
            raise LabError(f"initdb failed:\n{tail(self.run / 'logs/initdb.log')}\n"
                           f"  next: may the user nobody enter {self.run}? QUORATE_AIRFLOW_DIR chooses another folder")
        self.children.start(
            "postgres",
            [binaries / "postgres", "-D", data, "-p", port, "-c", "listen_addresses=127.0.0.1",
             "-c", "unix_socket_directories=", "-c", "fsync=off"],
            user=user, cwd="/",
        )
        self.until("Postgres listens", lambda: listens(port), 60)
        return f"airflow:{password}@127.0.0.1:{port}/postgres"

    def _environment(self, database: str) -> dict:
        home = self.run / "airflow"
        home.mkdir()
        self.password_file.write_text(self.password)
        self.password_file.chmod(0o600)
        passwords = home / "passwords.json"
        passwords.write_text(json.dumps({self.user: self.password}))
        passwords.chmod(0o600)
        settings = {
            "CORE__DAGS_FOLDER": HERE / "dags",
            "CORE__LOAD_EXAMPLES": False,
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__PARALLELISM": 16,
            "CORE__DAGS_ARE_PAUSED_AT_CREATION": False,
            "CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{self.user}:admin",
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": passwords,
            "CORE__FERNET_KEY": "",
            "API__BASE_URL": self.url,
            "API__SECRET_KEY": secrets.token_urlsafe(32),
            "API_AUTH__JWT_SECRET": self.jwt_secret,
            "DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{database}",
            "DAG_PROCESSOR__REFRESH_INTERVAL": 10,
            "LOGGING__LOGGING_LEVEL": "WARNING",
            "METRICS__OTEL_ON": True,
            "TRACES__OTEL_ON": False,
        }
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW_", "OTEL_"))}
        environment |= {f"AIRFLOW__{key}": str(value) for key, value in settings.items()}
        environment |= {
            "AIRFLOW_HOME": str(home),
            "PATH": f"{self.venv}/bin:{environment.get('PATH', '')}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONWARNINGS": "ignore",
            "NO_PROXY": "127.0.0.1,localhost",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.otlp,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_SERVICE_NAME": "airflow",
            "OTEL_METRIC_EXPORT_INTERVAL": "10000",
        }
        return environment

    # Waiting

    def until(self, what: str, done, seconds: float = START_SECONDS):
        """Asks again and again; what `done` returns once it is true."""
        deadline = time.monotonic() + seconds
        while True:
            self.children.check()
            answer = done()
            if answer:
                return answer
            if time.monotonic() > deadline:
                raise LabError(f"gave up after {seconds:.0f} s: waited until {what} (logs in {self.run}/logs)")
            time.sleep(0.5)

    def _log_in(self) -> bool:
        body = {"username": self.user, "password": self.password}
        try:
            self.token = self.call("POST", "/auth/token", body)["access_token"]
        except (LabError, OSError):
            return False
        return True

    def _scheduler_is_healthy(self) -> bool:
        return self.call("GET", "/api/v2/monitor/health")["scheduler"]["status"] == "healthy"

    def _dags_are_known(self) -> bool:
        known = {dag["dag_id"] for dag in self.call("GET", "/api/v2/dags")["dags"]}
        return {"burst_fanout", "flaky_ingest"} <= known

    # Talking

    def request(self, method: str, path: str, body=None, token=None):
        """One request; returns status, media type and the body's bytes, whatever the status is."""
        request = urllib.request.Request(self.url + path, method=method)
        token = self.token if token is None else token
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        if body is not None:
            request.add_header("Content-Type", "application/json")
            request.data = json.dumps(body).encode()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as answer:
                return answer.status, answer.headers.get_content_type(), answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers.get_content_type(), error.read()

    def call(self, method: str, path: str, body=None):
        """One request that must succeed; returns the JSON answer."""
        status, _, answer = self.request(method, path, body)
        if status >= 300:
            raise LabError(f"{method} {path}: {status} {answer[:300].decode(errors='replace')}")
        return json.loads(answer) if answer else None


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
