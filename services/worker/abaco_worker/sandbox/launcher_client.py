"""The worker's end of the launcher: one request to a waiting container, and how it ended.

``launcher/main.c`` and ``wire.c`` describe the protocol, ``sandbox_directory.py`` the files.
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

from abaco_proto.errors import Refused, Unavailable
from abaco_worker.domain.run_report import Message, Report, parse_report, parse_started
from abaco_worker.domain.run_request import Request
from abaco_worker.network.unix_peer import listener
from abaco_worker.sandbox.sandbox_directory import REPORT_BYTES, Place, Process

HEAD = struct.Struct("=4sI")
RUN, HALT, EXIT = b"RUN1", b"HALT", b"EXIT"
WAITING = "waiting"

READ_BYTES = 64 * 1024
SHORTEST_LOOK_SECONDS = 0.002
LONGEST_LOOK_SECONDS = 0.05
STARTED = 22
"""Which field of ``/proc/<pid>/stat`` it is, counted from 1 (proc(5))."""

LEAVE_SECONDS = 1.0
"""How long a launcher may take to go, before it is made to."""


class Launcher:
    """A connection to a launcher. Closing it, or losing it, leaves the run as it is."""

    def __init__(self, place: Place, connected: socket.socket) -> None:
        """Use :func:`connect`."""
        self._place = place
        self._socket = connected
        self._received = bytearray()

    @property
    def alive(self) -> bool:
        """Whether it still waits, as far as can be told without asking it."""
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def network(self) -> int:
        """The network of its container, opened.

        Raises:
            Unavailable: it went away, or is of another machine or container and cannot be seen.
        """
        path = f"/proc/{listener(self._socket)}/ns/net"
        try:
            opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise Unavailable(f"the launcher's network cannot be seen: {error}") from error
        if not self.alive:  # else the number was still its own
            os.close(opened)
            raise Unavailable("the launcher went away")
        return opened

    async def waits(self) -> bool:
        """Whether it has run nothing yet: so it greets. To be asked first, and once.

        Raises:
            Unavailable: it went away.
        """
        line = await self._line()
        if not line:
            raise Unavailable("the launcher went away before it said a word")
        if line != WAITING:
            self._received[:0] = f"{line}\n".encode()
        return line == WAITING

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
        """The stop signal for the program, after the grace SIGKILL; a container that waits ends.

        That it has ended already is no error: the report tells what became of it.
        """
        with suppress(Unavailable):
            await self._send(HEAD.pack(HALT, 0), [])

    async def leave(self) -> bool:
        """Have it end itself, and its container; False when it does not: its program still runs."""
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._send(HEAD.pack(EXIT, 0), [])
                while line := await self._line():
                    if line.startswith("error"):
                        return False
                return True
        return False

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
            return Launcher(place, _connected(place))
        except OSError as error:
            if time.monotonic() + pause > deadline:
                raise Unavailable(f"the launcher does not answer: {error}") from error
        await asyncio.sleep(pause)
        pause = min(LONGEST_LOOK_SECONDS, 1.5 * pause)


async def leave(place: Place) -> bool:
    """Have the launcher of a container end it, if one is there and nothing runs; whether it did."""
    try:
        launcher = await connect(place, 0)
    except Unavailable:
        return False
    try:
        return await launcher.leave()
    finally:
        launcher.close()


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
                async with asyncio.timeout(pause):
                    await ended.wait()
            pause = min(LONGEST_LOOK_SECONDS, 1.5 * pause)
    finally:
        os.close(file)


def _open(path: Path, way: int = os.O_WRONLY | os.O_APPEND) -> int:
    """Open a file of ours, made if it is missing. What it holds already stays."""
    return os.open(path, way | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _connected(place: Place) -> socket.socket:
    """A connection to the very socket of a place, however long its path is."""
    path = place.socket
    found = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if not stat.S_ISSOCK(os.fstat(found).st_mode):
            raise FileNotFoundError(f"{path} is no socket")
        connecting.setblocking(False)
        connecting.connect(f"/proc/self/fd/{found}")
        _check(listener(connecting), place.launcher())
    except OSError:
        connecting.close()
        raise
    finally:
        os.close(found)
    return connecting


def _check(pid: int, expected: Process | None) -> None:
    """Talk to nobody but the process that was started for this very container.

    The kernel says who listens. A worker that does not see the machine's processes is told 0;
    there the folder has to do, which is mounted into no container and open to nobody else.
    """
    if expected is None:
        raise FileNotFoundError("no launcher was started there")
    if pid and (pid != expected.pid or started(pid) != expected.started):
        raise PermissionError(f"process {pid} listens there, which is not its launcher")


def started(pid: int) -> int:
    """When a process was started, in ticks since the machine was.

    Raises:
        OSError: there is none.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[STARTED - 3])  # the first two are cut off
