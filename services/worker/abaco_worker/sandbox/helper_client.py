"""The helper client: has the helper start a launcher for each container (``launcher/helper.c``).

The helper needs root's capabilities and the host's PID namespace. If the worker has both, the
helper is a child process. Otherwise the engine runs it in a container. In both cases the worker
talks to it over its standard streams, which nothing else can open, and it exits with the worker.
Launchers are reparented: they exit with their containers.
"""

import asyncio
import logging
import re
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal, Protocol

from abaco_proto.errors import Unavailable
from abaco_worker.domain.engine_errors import EngineFault
from abaco_worker.network.unix_peer import peer_pid
from abaco_worker.sandbox.sandbox_directory import ProcessIdentity

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 10.0
CONNECT_SECONDS = 1.0
STARTED = re.compile(r"started ([0-9]{1,10}) ([0-9]{1,20})", re.ASCII)


HelperCommand = Literal["start", "sandbox", "connected"]
"""What a launcher is started for: one request; many requests, each in a new sandbox; the same, each
with a network namespace that the worker attaches."""


class Helper(Protocol):
    """Starts launchers."""

    async def start(
        self, command: HelperCommand, container_id: str, pid: int, name: str
    ) -> ProcessIdentity:
        """Start the launcher of a running container; ``pid`` is the container's process 1.

        The launcher listens in the sandbox directory ``name``.

        Raises:
            EngineFault: it was not started; another container may succeed.
        """
        ...

    def close(self) -> None:
        """End the helper. Launchers continue."""
        ...


class HelperChannel(Protocol):
    """The standard streams of a running helper."""

    async def ask(self, line: str) -> str:
        """Send a line, and return the answer; empty if the helper exited.

        Raises:
            OSError: the helper cannot be reached any more.
        """
        ...

    def close(self) -> None:
        """End the helper."""
        ...


OpenChannel = Callable[[], Awaitable[HelperChannel]]


async def find_helper(
    program: Path, folder: Path, location: str, open_container: OpenChannel
) -> Helper:
    """Return a helper that works for the engine at ``location``: a child, or else a container.

    If the engine is unavailable, ``open_container`` is called again at the first container.

    Raises:
        EngineFault: there is none; the text names the causes.
    """
    await asyncio.to_thread(folder.mkdir, 0o711, parents=True, exist_ok=True)
    refusals = []
    if await asyncio.to_thread(_shares_pid_namespace, location) is not False:
        try:
            return await _checked(lambda: start_child(program, folder), "a child of the worker")
        except EngineFault as error:
            refusals.append(str(error))
    try:
        return await _checked(open_container, "a container of their helper")
    except Unavailable as error:
        logger.warning(
            "the launchers' helper was not started: %s. The worker retries with its first"
            " container; start the container engine",
            error,
        )
        return HelperClient(open_container)
    except EngineFault as error:
        raise EngineFault("; ".join([*refusals, str(error)])) from error


async def _checked(open_channel: OpenChannel, where: str) -> Helper:
    helper = HelperClient(open_channel)
    await helper.check()
    logger.info("launchers are started by %s", where)
    return helper


def _shares_pid_namespace(location: str) -> bool | None:
    """Return whether the engine's processes are visible here; None while it is unavailable."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        connection.settimeout(CONNECT_SECONDS)
        try:
            connection.connect(location.removeprefix("unix://"))
        except OSError:
            return None
        return peer_pid(connection) > 0


class HelperClient:
    """Implements :class:`Helper`: one request at a time, over a channel opened on demand."""

    def __init__(self, open_channel: OpenChannel) -> None:
        """``open_channel`` starts a helper; it raises OSError or EngineFault on failure."""
        self._open = open_channel
        self._channel: HelperChannel | None = None
        self._lock = asyncio.Lock()

    async def start(
        self, command: HelperCommand, container_id: str, pid: int, name: str
    ) -> ProcessIdentity:
        """See :meth:`Helper.start`."""
        async with self._lock:
            answer = await self._ask(f"{command} {pid} {container_id} {name}\n")
        started = STARTED.fullmatch(answer)
        if started is None:
            cause = answer.removeprefix("error ") or "the helper ended"
            raise EngineFault(f"no launcher could be started: {cause}")
        return ProcessIdentity(pid=int(started[1]), started=int(started[2]))

    async def _ask(self, line: str) -> str:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                if self._channel is None:
                    self._channel = await self._open()
                answer = await self._channel.ask(line)
        except (OSError, TimeoutError) as error:
            self.close()
            cause = str(error) or f"it took longer than {ANSWER_SECONDS:.0f} s"
            raise EngineFault(f"the launchers' helper failed: {cause}") from error
        except BaseException:  # the next answer would belong to this request
            self.close()
            raise
        if not answer:
            self.close()
        return answer.rstrip("\n")

    def close(self) -> None:
        """See :meth:`Helper.close`."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    async def check(self) -> None:
        """Start the helper, and make it check that it can start launchers.

        Raises:
            EngineFault: it cannot; the text names the cause.
        """
        async with self._lock:
            answer = await self._ask("check\n")
        if answer != "ok":
            self.close()
            cause = answer.removeprefix("error ") or "the helper ended at once"
            raise EngineFault(f"no launcher can be started: {cause}")


class ChildChannel:
    """A helper that is a child of this process. Implements :class:`HelperChannel`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """Use :func:`start_child`."""
        self._process = process

    async def ask(self, line: str) -> str:
        """See :meth:`HelperChannel.ask`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line.encode())
        await self._process.stdin.drain()
        return (await self._process.stdout.readline()).decode(errors="replace")

    async def wait(self) -> int:
        """Wait until it exits, and return the exit code."""
        return await self._process.wait()

    def close(self) -> None:
        """See :meth:`HelperChannel.close`."""
        assert self._process.stdin is not None
        self._process.stdin.close()


async def start_child(program: Path, folder: Path) -> ChildChannel:
    """Start a helper as a child, in its own session: signals to the worker's group spare it."""
    process = await asyncio.create_subprocess_exec(
        program,
        "helper",
        folder,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={},  # launchers must not inherit the worker's variables
        start_new_session=True,
    )
    return ChildChannel(process)
