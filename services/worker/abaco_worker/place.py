"""The folder of one sandbox on the host. Only a part of it is the container's.

::

    <folder>/run/socket   mounted: the launcher listens here
    <folder>/hosts        mounted, as is the next, where the worker connects the container itself
    <folder>/resolv.conf
    <folder>/made         not mounted, nor is what follows: what the sandbox is, and of what
    <folder>/address      its own in the network, once the worker has connected it
    <folder>/assignment   what it was taken for, written before it is asked to run anything
    <folder>/ended_by     why the worker ended the run
    <folder>/output       what the program wrote, up to the limit
    <folder>/report       one line, when it ended

The launcher gets the last two files as open descriptors. So a program that is root in its
container can neither change them nor put a link to a file of the host in their place, and they
hold everything, whether a worker is there or not. A container's labels cannot change once it
runs; what a worker that comes back must know of it is in these files.
"""

from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from abaco_proto.codec import UNREADABLE
from abaco_proto.events import EndedBy, StartKind
from abaco_worker.launcher.report import Report, parse_report

PROGRAM = "/.abaco/launcher"
"""Where a container finds the launcher: its entry point, mounted read-only."""

MOUNT = "/.abaco/run"
"""Where it finds :attr:`Place.mounted`."""

REPORT_BYTES = 8 * 1024

T = TypeVar("T")


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What a sandbox was taken for. ``mark`` tells the assignment from every other.

    ``state_sequence`` is where the state that the run is given stands in the log.
    """

    mark: str
    start_kind: StartKind
    taken_at: str
    state_sequence: int = 0


class Place(msgspec.Struct, frozen=True):
    """The paths in one folder; see the head of the module."""

    folder: Path

    @property
    def name(self) -> str:
        """Of the folder, and of the container."""
        return self.folder.name

    @property
    def mounted(self) -> Path:
        """What is mounted into the container, at ``MOUNT``, to be written."""
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
        """Make the folders.

        The outer one is ours alone. In the inner one the launcher makes its socket as whatever
        user it is on the host, and then closes it too, if it may; until then the sticky bit keeps
        others from replacing the socket.
        """
        self.folder.mkdir(mode=0o700, parents=True)
        self.mounted.mkdir()
        self.mounted.chmod(0o1777)

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
