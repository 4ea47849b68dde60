"""The data folder: where everything the embedded stack keeps has its place."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec


class Folder(msgspec.Struct, frozen=True):
    """The paths below one data folder."""

    root: Path

    @property
    def identity(self) -> Path:
        """What was chosen once for this folder: ports, passwords, the host's id."""
        return self.root / "identity.json"

    @property
    def nats(self) -> Path:
        """JetStream's store: the log itself."""
        return self.root / "nats"

    @property
    def pgdata(self) -> Path:
        """The Postgres cluster."""
        return self.root / "pgdata"

    @property
    def run(self) -> Path:
        """What is generated anew at each ``up``, and holds secrets."""
        return self.root / "run"

    @property
    def commands(self) -> Path:
        """What each supervised process is: see ``launch``."""
        return self.run / "commands.json"

    @property
    def supervisord_conf(self) -> Path:
        """The supervisor's configuration."""
        return self.run / "supervisord.conf"

    @property
    def supervisord_pid(self) -> Path:
        """The supervisor's process id."""
        return self.run / "supervisord.pid"

    @property
    def nats_conf(self) -> Path:
        """The NATS server's configuration."""
        return self.run / "nats.conf"

    @property
    def logs(self) -> Path:
        """One file per process."""
        return self.root / "logs"

    def log(self, name: str) -> Path:
        """Return the log file of one process."""
        return self.logs / f"{name}.log"

    def create(self) -> None:
        """Make the folders; what holds secrets or output is its owner's alone."""
        self.root.mkdir(parents=True, exist_ok=True)
        for path in (self.nats, self.run, self.logs):
            path.mkdir(mode=0o700, exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let one command at a time change what runs; a second one waits."""
        with (self.run / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step, readable by its owner only from its first byte on."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    fresh.replace(path)


def read_text(path: Path) -> str:
    """Return a file's text, or nothing if there is no such file."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
