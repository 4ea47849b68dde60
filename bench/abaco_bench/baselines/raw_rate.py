"""Containers a second by the raw API: some threads start them, one removes them.

Two containers that end at the same time can lock up Docker 20.10 for good, so these do not end by
themselves, and one at a time is removed (docs/adr/0008). One remover keeps up with twice as many as
two cores can start, and works beside the starters, who need not wait for it.
"""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing

from abaco_bench.baselines.raw_docker import RawDocker

AHEAD = 2
"""How many started containers may wait for the remover, beside those of the starters."""


def rate(run: str, starters: int, seconds: float) -> float:
    """Containers a second, the whole life of each: created, started, read, removed."""
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(RawDocker(run))) for _ in range(starters + 1)]
        line = stack.enter_context(closing(_Line(clients[0], starters + AHEAD)))
        begun = time.perf_counter()
        with ThreadPoolExecutor(starters) as pool:
            made = list(pool.map(lambda client: line.feed(client, begun + seconds), clients[1:]))
        removed = sum(1 for future in _all(made) if future.result() is None)
        return removed / (time.perf_counter() - begun)


class _Line:
    """Started containers, on their way to the one who removes them."""

    def __init__(self, remover: RawDocker, room: int) -> None:
        self._remover = remover
        self._room = threading.Semaphore(room)
        self._removing = ThreadPoolExecutor(1, "remover")

    def close(self) -> None:
        """Wait until all that came is removed, so that removals do not overlap."""
        self._removing.shutdown()

    def feed(self, starter: RawDocker, deadline: float) -> list[Future[None]]:
        """Start one after another until the deadline; their removals."""
        made = []
        while time.perf_counter() < deadline:
            self._room.acquire()
            made.append(self._removing.submit(self._end, starter.start_held()))
        return made

    def _end(self, container: str) -> None:
        try:
            self._remover.end_held(container)
        finally:
            self._room.release()


def _all(made: list[list[Future[None]]]) -> Iterator[Future[None]]:
    for futures in made:
        yield from futures
