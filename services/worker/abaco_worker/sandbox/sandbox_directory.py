"""The folder of one sandbox on the host. No program can reach it.

::

    <folder>/hosts        mounted, as is the next, where the worker connects the container itself
    <folder>/resolv.conf
    <folder>/run/socket   not mounted, nor is what follows: the launcher listens here
    <folder>/launcher     which process that is
    <folder>/made         what the sandbox is, and of what
    <folder>/address      its own in the network, once the worker has connected it
    <folder>/assignment   what it was taken for, written before it is asked to run anything
    <folder>/ended_by     why the worker ended the run
    <folder>/output       what the program wrote, up to the limit
    <folder>/report       one line, when it ended

The launcher gets the last two files as open descriptors; they hold everything, whether a worker is
there or not. A container's labels cannot change once it runs; what a worker that comes back must
know of it is in these files.
"""

from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from abaco_proto.codec import UNREADABLE
from abaco_proto.events import EndedBy
from abaco_worker.domain.run_report import Report, parse_report
from abaco_worker.domain.sandbox_record import Taken

REPORT_BYTES = 8 * 1024

T = TypeVar("T")


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A process of the machine: its number, and its start in ticks since the machine's."""

    pid: int
    started: int


class Place(msgspec.Struct, frozen=True):
    """The paths in one folder; see the head of the module."""

    folder: Path

    @property
    def name(self) -> str:
        """Of the folder, and of the container."""
        return self.folder.name

    @property
    def mounted(self) -> Path:
        """The folder of the socket."""
        return self.folder / "run"

    @property
    def socket(self) -> Path:
        """Where the launcher listens."""
        return self.mounted / "socket"

    @property
    def hosts(self) -> Path:
        """The container's ``/etc/hosts``."""
        return self.folder / "hosts"

    @property
    def resolv_conf(self) -> Path:
        """The container's ``/etc/resolv.conf``."""
        return self.folder / "resolv.conf"

    @property
    def output(self) -> Path:
        """What the program wrote."""
        return self.folder / "output"

    @property
    def report(self) -> Path:
        """How it ended."""
        return self.folder / "report"

    def make(self) -> None:
        """Make the folders; they are ours alone."""
        self.folder.mkdir(mode=0o700, parents=True)
        self.mounted.mkdir(mode=0o700)

    def take(self, taken: Taken) -> None:
        """Say what the sandbox is taken for; whole, or not at all."""
        self._write("assignment", msgspec.json.encode(taken))

    def taken(self) -> Taken | None:
        """What it was taken for; nothing while it waits."""
        return self._read("assignment", Taken)

    def make_known(self, made: msgspec.Struct) -> None:
        """Say what the sandbox is."""
        self._write("made", msgspec.json.encode(made))

    def made(self, kind: type[T]) -> T | None:
        """What it is; nothing when a crash came before its container."""
        return self._read("made", kind)

    def expect(self, launcher: Process) -> None:
        """Say which process listens at the socket: no other is talked to."""
        self._write("launcher", msgspec.json.encode(launcher))

    def launcher(self) -> Process | None:
        """The process that listens; nothing before it was started."""
        return self._read("launcher", Process)

    def connect(self, address: str) -> None:
        """Say that it is connected, and with which address."""
        self._write("address", msgspec.json.encode(address))

    def address(self) -> str | None:
        """The address the worker gave it; nothing before that, and where the engine gave it one."""
        return self._read("address", str)

    def end(self, by: EndedBy) -> None:
        """Say why the run is about to be ended; the first reason stays."""
        if self.ended_by() is EndedBy.ITSELF:
            self._write("ended_by", msgspec.json.encode(by))

    def ended_by(self) -> EndedBy:
        """Why the worker ended the run; ``ITSELF`` when it did not."""
        return self._read("ended_by", EndedBy) or EndedBy.ITSELF

    def read_report(self) -> Report | None:
        """The report, once it is complete."""
        with suppress(FileNotFoundError), self.report.open("rb") as file:
            line = file.read(REPORT_BYTES)
            if line.endswith(b"\n"):
                return parse_report(line.decode(errors="replace"))
        return None

    def _write(self, name: str, content: bytes) -> None:
        fresh = self.folder / f"{name}.new"
        fresh.write_bytes(content)
        fresh.replace(self.folder / name)

    def _read(self, name: str, kind: type[T]) -> T | None:
        with suppress(FileNotFoundError, *UNREADABLE):
            return msgspec.json.decode((self.folder / name).read_bytes(), type=kind)
        return None
