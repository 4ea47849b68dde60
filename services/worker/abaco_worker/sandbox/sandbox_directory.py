"""The sandbox directory: the folder of one sandbox on the host.

::

    <directory>/hosts        mounted, like the next one, if the worker attaches the container itself
    <directory>/resolv.conf
    <directory>/run/socket   the launcher listens here; not mounted, like everything below
    <directory>/launcher     the launcher's process
    <directory>/made         the sandbox record
    <directory>/address      the container's address, once the worker has attached the container
    <directory>/assignment   the sandbox assignment, written before the launcher gets the request
    <directory>/ended_by     why the worker ended the run
    <directory>/output       the program's output, up to its limit
    <directory>/report       one line, written when the run has ended

Only ``hosts`` and ``resolv.conf`` are visible in the container. The launcher gets the last two
files as open descriptors. It fills them whether a worker is running or not. A container's labels
cannot change after its start, so what a restarted worker must know is in these files.
"""

from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from abaco_proto.envelope import DECODE_ERRORS
from abaco_proto.events import EndedBy
from abaco_worker.domain.run_report import RunReport, parse_report
from abaco_worker.domain.sandbox_record import SandboxAssignment, SandboxRecord

REPORT_BYTES = 8 * 1024
"""The maximal length of a line from the launcher."""

T = TypeVar("T")


class ProcessIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """A process of the host: its number, and its start time in ticks since boot."""

    pid: int
    started: int


class SandboxDirectory:
    """The files of one sandbox; see the module. ``name`` is also the name of the container."""

    def __init__(self, path: Path) -> None:
        """Nothing is read; the directory need not exist."""
        self.path = path
        self.name = path.name
        self.socket_folder = path / "run"
        self.socket = self.socket_folder / "socket"
        self.hosts = path / "hosts"
        self.resolv_conf = path / "resolv.conf"
        self.output = path / "output"
        self.report = path / "report"

    def create(self) -> None:
        """Create the directory; only the worker's user may enter it."""
        self.path.mkdir(mode=0o700, parents=True)
        self.socket_folder.mkdir(mode=0o700)

    def write_assignment(self, assignment: SandboxAssignment) -> None:
        """Store, atomically, the assignment that the sandbox is used for."""
        self._write("assignment", msgspec.json.encode(assignment))

    def read_assignment(self) -> SandboxAssignment | None:
        """Return the assignment that the sandbox is used for, or None if it is idle."""
        return self._read("assignment", SandboxAssignment)

    def write_record(self, record: SandboxRecord) -> None:
        """Store what the sandbox is."""
        self._write("made", msgspec.json.encode(record))

    def read_record(self) -> SandboxRecord | None:
        """Return what the sandbox is, or None if the worker crashed before it was created."""
        return self._read("made", SandboxRecord)

    def write_launcher(self, launcher: ProcessIdentity) -> None:
        """Store which process listens at the socket; the worker connects to no other."""
        self._write("launcher", msgspec.json.encode(launcher))

    def read_launcher(self) -> ProcessIdentity | None:
        """Return the process that listens at the socket, or None before it was started."""
        return self._read("launcher", ProcessIdentity)

    def write_address(self, address: str) -> None:
        """Store the address with which the worker attached the container."""
        self._write("address", msgspec.json.encode(address))

    def read_address(self) -> str | None:
        """Return the address that the worker assigned; None before that or if the engine did."""
        return self._read("address", str)

    def write_ended_by(self, by: EndedBy) -> None:
        """Store why the worker ends the run; the first reason is kept."""
        if self.read_ended_by() is EndedBy.ITSELF:
            self._write("ended_by", msgspec.json.encode(by))

    def read_ended_by(self) -> EndedBy:
        """Return why the worker ended the run, or ``ITSELF`` if it did not."""
        return self._read("ended_by", EndedBy) or EndedBy.ITSELF

    def read_report(self) -> RunReport | None:
        """Return the report, or None if it is not complete.

        Raises:
            Unavailable: it is damaged.
        """
        with suppress(FileNotFoundError), self.report.open("rb") as file:
            line = file.read(REPORT_BYTES)
            if line.endswith(b"\n"):
                return parse_report(line.decode(errors="replace"))
        return None

    def _write(self, name: str, content: bytes) -> None:
        new = self.path / f"{name}.new"
        new.write_bytes(content)
        new.replace(self.path / name)

    def _read(self, name: str, kind: type[T]) -> T | None:
        with suppress(FileNotFoundError, *DECODE_ERRORS):
            return msgspec.json.decode((self.path / name).read_bytes(), type=kind)
        return None
