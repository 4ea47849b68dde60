"""The worker's end of the helper, which starts a launcher for each container (``helper.c``).

The helper needs the rights of the machine's root and its process namespace. Where the worker has
both, the helper is a child of it; else it is a container that the engine makes for it. Either way
it is talked to over its standard streams, so nobody else can, and it ends when the worker does.
Launchers are not its children for long: they end with their containers.
"""

import asyncio
import logging
import re
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from abaco_proto.errors import Unavailable
from abaco_worker.domain.engine_errors import EngineFault
from abaco_worker.network.unix_peer import listener
from abaco_worker.sandbox.sandbox_directory import Process

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 10.0
CONNECT_SECONDS = 1.0
STARTED = re.compile(r"started ([0-9]{1,10}) ([0-9]{1,20})", re.ASCII)


class Helper(Protocol):
    """Starts launchers."""

    async def start(self, container_id: str, pid: int, name: str) -> Process:
        """Start the launcher of a container that runs; ``pid`` is its process 1.

        It listens in the folder ``name`` of the worker's; see :class:`Place`.

        Raises:
            EngineFault: it could not be; trying again, with another container, may help.
        """
        ...

    def close(self) -> None:
        """End the helper. Launchers go on."""
        ...


Open = Callable[[], Awaitable["Channel"]]


async def find(program: Path, folder: Path, location: str, by_engine: Open) -> Helper:
    """A helper that can do its work, for the engine at this location; ``by_engine`` makes another.

    Raises:
        EngineFault: there is none; the text says why.
    """
    await asyncio.to_thread(folder.mkdir, 0o711, parents=True, exist_ok=True)
    refusals = []
    if await asyncio.to_thread(_sees, location) is not False:
        try:
            return await _checked(lambda: child(program, folder), "a child of the worker")
        except EngineFault as error:
            refusals.append(str(error))
    try:
        return await _checked(by_engine, "a container of their helper")
    except Unavailable as error:  # so it is asked again when there is a container
        logger.warning("launchers' helper: %s", error)
        return ChannelHelper(by_engine)
    except EngineFault as error:
        raise EngineFault("; ".join([*refusals, str(error)])) from error


async def _checked(open_channel: Open, who: str) -> Helper:
    helper = ChannelHelper(open_channel)
    await helper.check()
    logger.info("launchers are started by %s", who)
    return helper


def _sees(location: str) -> bool | None:
    """Whether the engine's processes have numbers among ours; None while it is away."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as asking:
        asking.settimeout(CONNECT_SECONDS)
        try:
            asking.connect(location.removeprefix("unix://"))
        except OSError:
            return None
        return listener(asking) > 0


class Channel(Protocol):
    """A helper that runs."""

    async def ask(self, line: str) -> str:
        """Its answer to a line; empty when it ended.

        Raises:
            OSError: it cannot be reached any more.
        """
        ...

    def close(self) -> None:
        """End it."""
        ...


class ChannelHelper:
    """Implements :class:`Helper`: one request at a time, over a channel made when it is needed."""

    def __init__(self, open_channel: Open) -> None:
        """``open_channel`` starts a helper; it raises OSError or EngineFault when it can't."""
        self._open = open_channel
        self._channel: Channel | None = None
        self._turn = asyncio.Lock()

    async def start(self, container_id: str, pid: int, name: str) -> Process:
        """See :meth:`Helper.start`."""
        async with self._turn:
            answer = await self._ask(f"start {pid} {container_id} {name}\n")
        started = STARTED.fullmatch(answer)
        if started is None:
            words = answer.removeprefix("error ") or "the helper ended"
            raise EngineFault(f"no launcher could be started: {words}")
        return Process(pid=int(started[1]), started=int(started[2]))

    async def _ask(self, line: str) -> str:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                if self._channel is None:
                    self._channel = await self._open()
                answer = await self._channel.ask(line)
        except (OSError, TimeoutError) as error:
            self.close()
            words = str(error) or f"it took longer than {ANSWER_SECONDS:.0f} s"
            raise EngineFault(f"the launchers' helper failed: {words}") from error
        except BaseException:  # whose answer would come next, nobody could tell
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
        """Start the helper, and have it look whether it can do its work.

        Raises:
            EngineFault: it can't; the text says why.
        """
        async with self._turn:
            answer = await self._ask("check\n")
        if answer != "ok":
            self.close()
            words = answer.removeprefix("error ") or "it ended at once"
            raise EngineFault(f"no launcher can be started: {words}")


class ChildChannel:
    """A helper that is a child of this process. Implements :class:`Channel`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """Use :func:`child`."""
        self._process = process

    async def ask(self, line: str) -> str:
        """See :meth:`Channel.ask`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line.encode())
        await self._process.stdin.drain()
        return (await self._process.stdout.readline()).decode(errors="replace")

    async def ended(self) -> int:
        """Wait for its end; its exit code."""
        return await self._process.wait()

    def close(self) -> None:
        """See :meth:`Channel.close`."""
        assert self._process.stdin is not None
        self._process.stdin.close()


async def child(program: Path, folder: Path) -> ChildChannel:
    """Start a helper as a child of this process; signals for the worker's group spare it."""
    process = await asyncio.create_subprocess_exec(
        program,
        "helper",
        folder,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={},  # what the worker knows is nothing for launchers
        start_new_session=True,
    )
    return ChildChannel(process)
