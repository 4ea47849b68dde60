"""The worker's end of the launcher: one request to a waiting container, and how it ended.

Per container there is a folder of the host, of which only a part is the container's::

    <folder>/run/socket   mounted: the launcher listens here
    <folder>/output       not mounted: what the program wrote, up to the limit
    <folder>/report       not mounted: one line, when it ended

The launcher gets the two files as open descriptors. So a program that is root in its container
can neither change them nor put a link to a file of the host in their place, and they hold
everything, whether a worker is there or not. ``launcher/main.c`` and ``wire.c`` describe the
protocol.
"""

import asyncio
import os
import socket
import stat
import struct
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from pathlib import Path

import msgspec

from abaco_proto.errors import Refused, Unavailable
from abaco_worker.launcher.report import Message, Report, parse_report, parse_started
from abaco_worker.launcher.request import Request

PROGRAM = "/.abaco/launcher"
"""Where a container finds the launcher: its entry point, mounted read-only."""

MOUNT = "/.abaco/run"
"""Where it finds :attr:`Place.mounted`."""

HEAD = struct.Struct("=4sI")
RUN, HALT = b"RUN1", b"HALT"

READ_BYTES = 64 * 1024
REPORT_BYTES = 8 * 1024
SHORTEST_LOOK_SECONDS = 0.002
LONGEST_LOOK_SECONDS = 0.05


class Place(msgspec.Struct, frozen=True):
    """The folder of one container on the host; see the head of the module."""

    folder: Path

    @property
    def mounted(self) -> Path:
        """What is mounted into the container, at ``MOUNT``, to be written."""
        return self.folder / "run"

    @property
    def socket(self) -> Path:
        """Where the launcher listens."""
        return self.mounted / "socket"

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

    def read_report(self) -> Report | None:
        """The report, once it is complete."""
        with suppress(FileNotFoundError), self.report.open("rb") as file:
            line = file.read(REPORT_BYTES)
            if line.endswith(b"\n"):
                return parse_report(line.decode(errors="replace"))
        return None


class Launcher:
    """A connection to a launcher. Closing it, or losing it, leaves the run as it is."""

    def __init__(self, place: Place, connected: socket.socket) -> None:
        """Use :func:`connect`."""
        self._place = place
        self._socket = connected
        self._received = bytearray()

    async def launch(self, request: Request) -> None:
        """Send the request of this container, its only one.

        Raises:
            Malformed: it cannot be passed to any program; nothing was sent.
            Unavailable: the launcher went away.
        """
        body = request.encode()
        files = [_open(self._place.output), _open(self._place.report)]
        try:
            await self._send(HEAD.pack(RUN, len(body)) + body, files)
        finally:
            for file in files:
                os.close(file)

    async def halt(self) -> None:
        """SIGTERM for the program, after the grace SIGKILL; a container that waits ends at once.

        That it has ended already is no error: the report tells what became of it.
        """
        with suppress(Unavailable):
            await self._send(HEAD.pack(HALT, 0), [])

    async def messages(self) -> AsyncGenerator[Message, None]:
        """What the launcher says: that the program runs (perhaps twice), and at last the report.

        Raises:
            Refused: it did not take the request.
            Unavailable: it went away without a report.
        """
        while line := await self._line():
            kind, _, rest = line.partition(" ")
            if kind == "started":
                yield parse_started(rest)
            elif kind == "report":
                yield self._place.read_report() or parse_report(line)
                return
            elif kind == "error":
                raise Refused(f"the launcher says: {rest}")
        report = self._place.read_report()
        if report is None:
            raise Unavailable("the launcher went away without a report")
        yield report

    async def report(self) -> Report:
        """How it ended, when it has. Raises as :meth:`messages` does."""
        async with aclosing(self.messages()) as messages:
            async for message in messages:
                if isinstance(message, Report):
                    return message
        raise AssertionError("the messages end with a report")

    def close(self) -> None:
        """Leave it alone."""
        self._socket.close()

    async def _line(self) -> str:
        """The next line without its end; empty when no more come."""
        loop = asyncio.get_running_loop()
        while (end := self._received.find(b"\n")) < 0:
            try:
                data = await loop.sock_recv(self._socket, REPORT_BYTES)
            except OSError:
                data = b""
            if not data or len(self._received) > REPORT_BYTES:
                return ""
            self._received += data
        line = self._received[:end].decode(errors="replace")
        del self._received[: end + 1]
        return line

    async def _send(self, data: bytes, files: Sequence[int]) -> None:
        loop = asyncio.get_running_loop()
        try:
            sent = socket.send_fds(self._socket, [data], files)
            if sent < len(data):  # else it may all be over by now
                await loop.sock_sendall(self._socket, data[sent:])
        except OSError as error:
            raise Unavailable(f"the launcher went away: {error}") from error


async def connect(place: Place, seconds: float) -> Launcher:
    """Connect to a launcher, which may only be starting.

    Raises:
        Unavailable: none answered in time.
    """
    deadline = time.monotonic() + seconds
    pause = SHORTEST_LOOK_SECONDS
    while True:
        try:
            return Launcher(place, _connected(place.socket))
        except OSError as error:
            if time.monotonic() + pause > deadline:
                raise Unavailable(f"the launcher does not answer: {error}") from error
        await asyncio.sleep(pause)
        pause = min(LONGEST_LOOK_SECONDS, 1.5 * pause)


async def tail(place: Place, ended: asyncio.Event) -> AsyncGenerator[bytes, None]:
    """The output from its beginning, as it grows, until ``ended`` is set and all of it is read.

    Set ``ended`` when the report is there: then the output is complete.
    """
    file = _open(place.output, os.O_RDONLY)
    pause = SHORTEST_LOOK_SECONDS
    try:
        while True:
            last = ended.is_set()
            while data := os.read(file, READ_BYTES):
                pause = SHORTEST_LOOK_SECONDS
                yield data
            if last:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), pause)
            pause = min(LONGEST_LOOK_SECONDS, 1.5 * pause)
    finally:
        os.close(file)


def _open(path: Path, way: int = os.O_WRONLY | os.O_APPEND) -> int:
    """Open a file of ours, made if it is missing. What it holds already stays."""
    return os.open(path, way | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _connected(path: Path) -> socket.socket:
    """A connection to the very socket at a path, however long that is.

    The container's root could have put a link there, to any socket of the host.
    """
    found = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if not stat.S_ISSOCK(os.fstat(found).st_mode):
            raise FileNotFoundError(f"{path} is no socket")
        connecting.setblocking(False)
        connecting.connect(f"/proc/self/fd/{found}")
    except OSError:
        connecting.close()
        raise
    finally:
        os.close(found)
    return connecting
