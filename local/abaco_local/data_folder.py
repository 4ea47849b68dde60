"""The data folder: all files of the embedded stack."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec


class DataFolder(msgspec.Struct, frozen=True):
    """The paths in one data folder."""

    root: Path

    @property
    def identity(self) -> Path:
        """Ports, passwords and the host's id."""
        return self.root / "identity.json"

    @property
    def nats(self) -> Path:
        """The store of JetStream, which holds the log."""
        return self.root / "nats"

    @property
    def pgdata(self) -> Path:
        """The Postgres cluster."""
        return self.root / "pgdata"

    @property
    def run(self) -> Path:
        """Files that each ``up`` writes again; they contain secrets."""
        return self.root / "run"

    @property
    def commands(self) -> Path:
        """The command lines and environments of the processes; see ``launch``."""
        return self.run / "commands.json"

    @property
    def supervisord_conf(self) -> Path:
        """The configuration of the supervisor."""
        return self.run / "supervisord.conf"

    @property
    def supervisord_pid(self) -> Path:
        """The process id of the supervisor."""
        return self.run / "supervisord.pid"

    @property
    def nats_conf(self) -> Path:
        """The configuration of the NATS server."""
        return self.run / "nats.conf"

    @property
    def logs(self) -> Path:
        """One log file per process."""
        return self.root / "logs"

    def log(self, name: str) -> Path:
        """Return the log file of one process."""
        return self.logs / f"{name}.log"

    def create(self) -> None:
        """Make the folders; only their owner may read those with secrets or output."""
        self.root.mkdir(parents=True, exist_ok=True)
        for path in (self.nats, self.run, self.logs):
            path.mkdir(mode=0o700, exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock that lets one command at a time change the stack."""
        with (self.run / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def write_private(path: Path, text: str) -> None:
    """Replace a file atomically; only its owner may read it, from the first byte on."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    new.replace(path)


def read_text(path: Path) -> str:
    """Return the text of a file; empty if there is no such file."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
