"""TCP proxies between the servers of a test, which can be interrupted like a network.

An interrupted proxy closes no connection. Data in flight is kept, and delivered when the proxy is
restored: both ends notice only that nothing arrives.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from servers import LOOPBACK, free_port

CHUNK_BYTES = 65536

T = TypeVar("T")


class TcpProxy:
    """A proxy from its own port to another port of this machine."""

    def __init__(self, target: int) -> None:
        """Start it with :func:`running_proxies`."""
        self.port = free_port()
        self._target = target
        self._whole = asyncio.Event()
        self._whole.set()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> asyncio.Server:
        """Listen."""
        self._loop = asyncio.get_running_loop()
        return await asyncio.start_server(self._serve, LOOPBACK, self.port)

    def cut(self) -> None:
        """Keep all data from now on."""
        self._call(self._whole.clear)

    def mend(self) -> None:
        """Deliver data again, first what was kept."""
        self._call(self._whole.set)

    def _call(self, what: Callable[[], None]) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(what)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            await self._whole.wait()
            there, back = await asyncio.open_connection(LOOPBACK, self._target)
            ends.append(back)
            await asyncio.gather(self._copy(reader, back), self._copy(there, writer))
        except OSError:
            pass
        except asyncio.CancelledError:  # the test ends; asyncio would report it
            for end in ends:  # data that is not sent yet would keep them open
                end.transport.abort()
        finally:
            for end in ends:
                end.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                await self._whole.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


@contextmanager
def running_proxies(proxies: list[TcpProxy]) -> Iterator[None]:
    """The proxies run in their own thread, because the test may block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(work: Coroutine[None, None, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result(10)

    listeners = run(_start(proxies))
    try:
        yield
    finally:
        run(_stop(listeners))
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _start(proxies: list[TcpProxy]) -> list[asyncio.Server]:
    return [await proxy.start() for proxy in proxies]


async def _stop(listeners: list[asyncio.Server]) -> None:
    for listener in listeners:
        listener.close()
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    await asyncio.sleep(0)  # the transports close in the next iteration
