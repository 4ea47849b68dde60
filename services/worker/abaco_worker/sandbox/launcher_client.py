"""The launcher client: sends requests to an idle launcher, and receives how each run ended.

``launcher/main.c`` and ``launcher/wire.c`` describe the protocol, ``sandbox_directory.py`` the
files.
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
from abaco_worker.domain.run_report import (
    LauncherMessage,
    RunReport,
    parse_report,
    parse_started,
)
from abaco_worker.domain.run_request import RunRequest
from abaco_worker.network.unix_peer import peer_pid
from abaco_worker.sandbox.sandbox_directory import (
    REPORT_BYTES,
    ProcessIdentity,
    RunDirectory,
    SandboxDirectory,
)

HEADER = struct.Struct("=4sI")  # kind, length of the body
HALT, EXIT = b"HALT", b"EXIT"
IDLE = "waiting"
"""The line of an idle launcher: as a greeting, and after a run if its container stays."""

ENDS = ("report", "refused")
"""The first words of the lines after which a request is over."""

READ_BYTES = 64 * 1024
MIN_POLL_SECONDS = 0.002
MAX_POLL_SECONDS = 0.05
POLL_FACTOR = 1.5

START_TIME_FIELD = 22
"""The field of ``/proc/<pid>/stat`` with the start time, counted from 1 (proc(5))."""

EXIT_SECONDS = 1.0
"""How long a launcher may take to exit before its container is killed."""


class LauncherClient:
    """A connection to a launcher. Closing or losing it does not affect the run."""

    def __init__(self, directory: SandboxDirectory, connection: socket.socket) -> None:
        """Use :func:`connect`."""
        self._directory = directory
        self._socket = connection
        self._received = bytearray()
        self._last_end = ""
        self._network = -1
        self._polled = -1

    @property
    def alive(self) -> bool:
        """Whether the connection is open. It can be open although the launcher died."""
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def open_network_namespace(self) -> int:
        """Open the network namespace of the container, and return the descriptor.

        Raises:
            Unavailable: the launcher exited, or its process is not visible in this PID namespace.
        """
        path = f"/proc/{peer_pid(self._socket)}/ns/net"
        try:
            opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise Unavailable(f"the launcher's network cannot be seen: {error}") from error
        if not self.alive:  # another process may have got its number
            os.close(opened)
            raise Unavailable("the launcher went away")
        return opened

    def take_network(self) -> int:
        """Return the descriptor of the next message's network namespace; the caller closes it.

        Raises:
            Unavailable: none came with the line of the idle launcher.
        """
        if self._network < 0:
            raise Unavailable("the launcher sent no network")
        taken, self._network = self._network, -1
        return taken

    async def read_greeting(self, *, stays: bool) -> bool:
        """Read the first lines, and return whether the launcher is idle. Call it first, and once.

        If the container ``stays``, they begin with how the last request ended, if there was one.

        Raises:
            Unavailable: the launcher exited.
        """
        line = await self._line()
        if stays and line.startswith(ENDS):
            self._last_end = line
            line = await self._line()
        if not line:
            raise Unavailable("the launcher went away before it sent its first line")
        if line != IDLE:
            self._received[:0] = f"{line}\n".encode()
        return line == IDLE

    async def wait_idle(self) -> None:
        """Wait until nothing is left of the last run, and a sandbox for the next one is made.

        Call it after the report of a run in a container that stays.

        Raises:
            Unavailable: the launcher exited.
        """
        while (line := await self._line()) != IDLE:
            if not line:
                raise Unavailable("the launcher went away after a run")

    async def launch(self, request: RunRequest, run: RunDirectory | None = None) -> None:
        """Send the request of a run. The launcher must be idle.

        ``run`` is by default that of a container that is used once.

        Raises:
            Malformed: the request cannot be passed to a program; nothing was sent.
            Unavailable: the launcher exited.
        """
        run = run or self._directory
        body = request.encode(run.request_id)
        files = [_open(run.output, os.O_WRONLY | os.O_APPEND), _open(run.report, os.O_WRONLY)]
        try:
            await self._send(HEADER.pack(request.verb, len(body)) + body, files)
        finally:
            for file in files:
                os.close(file)

    def last_report(self, run: RunDirectory) -> RunReport | None:
        """Return the report of a run, if it was the last one before this client connected.

        The launcher keeps it if it could not write it, as on a full disk. Without a report of this
        run, an idle launcher has not begun it.
        """
        kind, _, rest = self._last_end.partition(" ")
        if kind == "report" and rest.partition(" ")[0] == run.request_id:
            return parse_report(self._last_end)
        return None

    async def halt(self, run: RunDirectory | None = None) -> None:
        """Send the program its stop signal, and SIGKILL after the grace.

        If the run has ended, nothing happens; the report is the result. The halt has the id of its
        request, so it ends no other one. An idle launcher of a container that is used once exits.
        """
        body = (run or self._directory).request_id.encode()
        with suppress(Unavailable):
            await self._send(HEADER.pack(HALT, len(body)) + body, [])

    async def exit(self) -> bool:
        """Make the launcher exit, and with it the container; False if its program still runs."""
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(EXIT_SECONDS):
                await self._send(HEADER.pack(EXIT, 0), [])
                while line := await self._line():
                    if line.startswith("error"):
                        return False
                return True
        return False

    async def messages(
        self, run: RunDirectory | None = None
    ) -> AsyncGenerator[LauncherMessage, None]:
        """Yield the messages: ``ProgramStarted``, possibly twice, and the report as the last.

        Raises:
            Refused: the launcher refused the request; its program was not started.
            Unavailable: it exited without a report.
        """
        run = run or self._directory
        while line := await self._line():
            kind, _, rest = line.partition(" ")
            if run.request_id and kind != "error" and rest.partition(" ")[0] != run.request_id:
                continue  # of an earlier request
            if kind == "started":
                yield parse_started(rest)
            elif kind == "report":
                yield run.read_report() or parse_report(line)
                return
            elif kind in ("error", "refused"):
                words = rest.removeprefix(f"{run.request_id} ") if run.request_id else rest
                raise Refused(f"the launcher refused the request: {words}")
        report = run.read_report()
        if report is None:
            raise Unavailable("the launcher went away without a report")
        yield report

    async def wait_for_report(self, run: RunDirectory | None = None) -> RunReport:
        """Return the report when the run has ended. Raises as :meth:`messages`."""
        async with aclosing(self.messages(run)) as messages:
            async for message in messages:
                if isinstance(message, RunReport):
                    return message
        raise AssertionError("the messages end with a report")

    def close(self) -> None:
        """Close the connection; the launcher and its program continue."""
        self._stop_polling()
        self._keep_network(-1)
        self._socket.close()

    async def _line(self) -> str:
        """Return the next line without its end; empty when the connection is closed."""
        while (end := self._received.find(b"\n")) < 0:
            data = await self._receive()
            if not data or len(self._received) > REPORT_BYTES:
                return ""
            self._received += data
        line = self._received[:end].decode(errors="replace")
        del self._received[: end + 1]
        return line

    async def _receive(self) -> bytes:
        """Return the next bytes, empty if the connection is closed; keep a descriptor with them."""
        while True:
            try:
                data, files, _, _ = socket.recv_fds(
                    self._socket, REPORT_BYTES, 1, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                await self._readable()
            except OSError:
                return b""
            else:
                for file in files:
                    self._keep_network(file)
                return data

    def _keep_network(self, descriptor: int) -> None:
        if self._network >= 0:
            os.close(self._network)
        self._network = descriptor

    async def _readable(self) -> None:
        readable = asyncio.get_running_loop().create_future()
        self._polled = self._socket.fileno()
        asyncio.get_running_loop().add_reader(self._polled, _resolve, readable)
        try:
            await readable
        finally:
            self._stop_polling()

    def _stop_polling(self) -> None:
        """Stop while the descriptor is open: its number may belong to another file later."""
        if self._polled >= 0:
            asyncio.get_running_loop().remove_reader(self._polled)
        self._polled = -1

    async def _send(self, data: bytes, files: Sequence[int]) -> None:
        loop = asyncio.get_running_loop()
        try:
            sent = socket.send_fds(self._socket, [data], files)
            if sent < len(data):  # do not send nothing: the run may have ended by now
                await loop.sock_sendall(self._socket, data[sent:])
        except OSError as error:
            raise Unavailable(f"the launcher went away: {error}") from error


async def connect(directory: SandboxDirectory, timeout_seconds: float) -> LauncherClient:
    """Connect to the launcher of a sandbox, also while it is starting.

    Raises:
        Unavailable: none answered in time.
    """
    deadline = time.monotonic() + timeout_seconds
    pause = MIN_POLL_SECONDS
    while True:
        try:
            return LauncherClient(directory, _connected_socket(directory))
        except OSError as error:
            if time.monotonic() + pause > deadline:
                raise Unavailable(f"the launcher does not answer: {error}") from error
        await asyncio.sleep(pause)
        pause = min(MAX_POLL_SECONDS, POLL_FACTOR * pause)


async def request_exit(directory: SandboxDirectory) -> bool:
    """Make the launcher of a sandbox exit; False if there is none or its program still runs."""
    try:
        launcher = await connect(directory, 0)
    except Unavailable:
        return False
    try:
        return await launcher.exit()
    finally:
        launcher.close()


async def follow_output(run: RunDirectory, ended: asyncio.Event) -> AsyncGenerator[bytes, None]:
    """Yield the output from its beginning, as it grows, to its end.

    Set ``ended`` when the report has come: the output is complete then.
    """
    file = _open(run.output, os.O_RDONLY)
    pause = MIN_POLL_SECONDS
    try:
        while True:
            last = ended.is_set()
            while data := os.read(file, READ_BYTES):
                pause = MIN_POLL_SECONDS
                yield data
            if last:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await ended.wait()
            pause = min(MAX_POLL_SECONDS, POLL_FACTOR * pause)
    finally:
        os.close(file)


def process_start_ticks(pid: int) -> int:
    """Return the start time of a process, in ticks since boot.

    Raises:
        OSError: there is no such process.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[START_TIME_FIELD - 3])  # the first two fields are cut off


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _open(path: Path, mode: int) -> int:
    """Open a file of a run; create it if it is missing, and keep its contents."""
    return os.open(path, mode | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _connected_socket(directory: SandboxDirectory) -> socket.socket:
    """Connect to the socket in the directory, however long its path is.

    The socket is opened without following a link, and the connection goes to what was opened: a
    replaced socket is not connected to.
    """
    path = directory.socket
    opened = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if not stat.S_ISSOCK(os.fstat(opened).st_mode):
            raise FileNotFoundError(f"{path} is no socket")
        connection.setblocking(False)
        connection.connect(f"/proc/self/fd/{opened}")
        _check_peer(peer_pid(connection), directory.read_launcher())
    except OSError:
        connection.close()
        raise
    finally:
        os.close(opened)
    return connection


def _check_peer(pid: int, expected: ProcessIdentity | None) -> None:
    """Refuse every listener except the launcher that was started for this container.

    The kernel reports the listener's process. It reports 0 to a worker in another PID namespace.
    Such a worker relies on the directory: it is mounted into no container, and only the worker's
    user may enter it.
    """
    if expected is None:
        raise FileNotFoundError("no launcher was started there")
    if pid and (pid != expected.pid or process_start_ticks(pid) != expected.started):
        raise PermissionError(f"process {pid} listens there, which is not its launcher")
