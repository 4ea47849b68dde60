"""Wires between servers of a test: small TCP proxies that can be cut, as a network is, and mended.

A cut wire closes nothing. What was on its way waits, and arrives when the wire is mended: neither
end learns of it but by the other's silence.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from servers import LOOPBACK, free_port

CHUNK_BYTES = 65536

T = TypeVar("T")


class Wire:
    """From a port of its own to another port of this machine."""

    def __init__(self, target: int) -> None:
        """Nothing is laid yet."""
        self.port = free_port()
        self._target = target
        self._whole = asyncio.Event()
        self._whole.set()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def lay(self) -> asyncio.Server:
        """Listen."""
        self._loop = asyncio.get_running_loop()
        return await asyncio.start_server(self._serve, LOOPBACK, self.port)

    def cut(self) -> None:
        """Let nothing through any more."""
        self._tell(self._whole.clear)

    def mend(self) -> None:
        """Let everything through again, first what has waited."""
        self._tell(self._whole.set)

    def _tell(self, what: Callable[[], None]) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(what)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            await self._whole.wait()
            there, back = await asyncio.open_connection(LOOPBACK, self._target)
            ends.append(back)
            await asyncio.gather(self._carry(reader, back), self._carry(there, writer))
        except OSError:
            pass
        except asyncio.CancelledError:  # the end of all, which streams would report
            for end in ends:  # what still waits to be sent would keep them open
                end.transport.abort()
        finally:
            for end in ends:
                end.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                await self._whole.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


@contextmanager
def laid(wires: list[Wire]) -> Iterator[None]:
    """The wires carry, on a thread of their own: those who use them may block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(work: Coroutine[None, None, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result(10)

    listeners = run(_lay(wires))
    try:
        yield
    finally:
        run(_take_up(listeners))
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _lay(wires: list[Wire]) -> list[asyncio.Server]:
    return [await wire.lay() for wire in wires]


async def _take_up(listeners: list[asyncio.Server]) -> None:
    for listener in listeners:
        listener.close()
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    await asyncio.sleep(0)  # now what was closed is
