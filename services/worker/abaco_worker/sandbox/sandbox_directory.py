"""The sandbox directory: the folder of one sandbox on the host.

::

    <directory>/hosts        mounted, like the next one, if the worker attaches the container itself
    <directory>/resolv.conf
    <directory>/run/socket   the launcher listens here; not mounted, like everything below
    <directory>/launcher     the launcher's process
    <directory>/made         the sandbox record
    <directory>/address      the container's address, once the worker has attached the container
    <directory>/layers       what the programs write, if the container stays (``sandbox/layer.c``)

    <run>/assignment   the sandbox assignment, written before the launcher gets the request
    <run>/ended_by     why the worker ended the run
    <run>/output       the program's output, up to its limit
    <run>/report       one line, written when the run has ended

If the container stays, ``<run>`` is ``<directory>/runs/<request id>``, and is removed when the
result is in the log; the id is the assignment key. Else it is ``<directory>``.

Only ``hosts`` and ``resolv.conf`` are visible in the container. The launcher gets ``output`` and
``report`` as open descriptors. It fills them whether a worker is running or not. A container's
labels cannot change after its start, so what a restarted worker must know is in these files.
"""

import shutil
from collections.abc import Sequence
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

RUNS = "runs"

T = TypeVar("T")


class ProcessIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """A process of the host: its number, and its start time in ticks since boot."""

    pid: int
    started: int


class RunDirectory:
    """The files of one run; see the module.

    ``request_id`` is the id of the run's request; empty if the container is used once.
    """

    def __init__(self, path: Path, request_id: str = "") -> None:
        """Nothing is read; the directory need not exist."""
        self.path = path
        self.request_id = request_id
        self.output = path / "output"
        self.report = path / "report"

    def begin(self, assignment: SandboxAssignment) -> None:
        """Store, atomically, the assignment that is to be run.

        Raises:
            OSError: such as a full disk; the assignment is not stored.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._write("assignment", msgspec.json.encode(assignment))

    def read_assignment(self) -> SandboxAssignment | None:
        """Return the assignment that is run, or None if there is none."""
        return self._read("assignment", SandboxAssignment)

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

    def remove(self) -> None:
        """Remove the files. What cannot be removed goes with the container's directory."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _write(self, name: str, content: bytes) -> None:
        new = self.path / f"{name}.new"
        new.write_bytes(content)
        new.replace(self.path / name)

    def _read(self, name: str, kind: type[T]) -> T | None:
        with suppress(FileNotFoundError, *DECODE_ERRORS):
            return msgspec.json.decode((self.path / name).read_bytes(), type=kind)
        return None


class SandboxDirectory(RunDirectory):
    """The files of one container; see the module. ``name`` is also the name of the container.

    It is the run directory of a container that is used once.
    """

    def __init__(self, path: Path) -> None:
        """Nothing is read; the directory need not exist."""
        super().__init__(path)
        self.name = path.name
        self.socket_folder = path / "run"
        self.socket = self.socket_folder / "socket"
        self.hosts = path / "hosts"
        self.resolv_conf = path / "resolv.conf"
        self.layers = path / "layers"

    def create(self) -> None:
        """Create the directory; only the worker's user may enter it."""
        self.path.mkdir(mode=0o700, parents=True)
        self.socket_folder.mkdir(mode=0o700)

    def run(self, request_id: str, *, stays: bool) -> RunDirectory:
        """Return the directory of a run in this container; it need not exist."""
        return RunDirectory(self.path / RUNS / request_id, request_id) if stays else self

    def runs(self) -> Sequence[RunDirectory]:
        """Return the directories of all runs that were begun and not removed."""
        paths: Sequence[Path] = ()
        with suppress(FileNotFoundError):
            paths = sorted((self.path / RUNS).iterdir())
        found = (*(RunDirectory(path, path.name) for path in paths), self)
        return [run for run in found if (run.path / "assignment").exists()]

    def layer_folders(self) -> Sequence[str]:
        """Return where programs write: over the image, and over each of its volumes."""
        volumes = sorted(self.layers.glob("[0-9]*/upper"))
        return [str(path) for path in (self.layers / "upper", *volumes)]

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
