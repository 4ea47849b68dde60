"""Containers a second for a while: ours with an inbox that is never empty, beside the raw API."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from statistics import mean
from typing import NamedTuple

from abaco_bench.stack.stage import LOOK_SECONDS, RUN_SECONDS, Stage
from images import QUICK

BACKLOG = 30
"""How many messages wait at least."""

WARM_ENDS = 3
"""Runs that are not counted: until here the workers were being made."""

_numbers = count()


class Ours(NamedTuple):
    """Executions finished a second, and by whom the containers that were left were connected."""

    rate: float
    by_worker: int
    by_engine: int


def ours(stage: Stage, isolation: str, workers: int, seconds: float) -> Ours:
    """What an actor with so many workers does, containers removed and all.

    What ended and is not removed yet does not count: so it cannot be put off until afterwards.
    """
    name = f"bench-load-{next(_numbers)}"
    actor_id = stage.register(name, QUICK, least=workers, most=workers, isolation=isolation)
    try:
        with _fed(stage, actor_id):
            _wait_ends(stage, actor_id, WARM_ENDS * workers)
            before, begun = stage.containers(actor_id), time.time()
            time.sleep(seconds)
            after, ended = stage.containers(actor_id), time.time()
            done = [at for at in stage.subscriber.ends(actor_id) if begun <= at < ended]
            unconnected = stage.unconnected(actor_id)
    finally:
        stage.delete(actor_id)
    rate = (len(done) - (after - before)) / (ended - begun)
    return Ours(rate, sum(unconnected), len(unconnected) - sum(unconnected))


def best(levels: list[int], measure: Callable[[int], float]) -> tuple[int, dict[int, float]]:
    """The level with the highest rate, and all rates: each of two looks, there and back.

    Levels differ by less than a machine drifts while they are tried; what drifts evenly hits all
    alike when the second look goes through them the other way round.
    """
    looks = [*levels, *reversed(levels)]
    found = [(level, measure(level)) for level in looks]
    rates = {level: mean(rate for at, rate in found if at == level) for level in levels}
    return max(rates, key=lambda level: rates[level]), rates


@contextmanager
def _fed(stage: Stage, actor_id: str) -> Iterator[None]:
    """Keep the inbox filled."""
    stop = threading.Event()

    def feed() -> None:
        sent = 0
        while not stop.is_set():
            if sent - len(stage.subscriber.ends(actor_id)) < BACKLOG:
                stage.post(actor_id, f"{sent}")
                sent += 1
            else:
                stop.wait(LOOK_SECONDS)

    with ThreadPoolExecutor(1, "feeder") as pool:
        feeding = pool.submit(feed)
        try:
            yield
        finally:
            stop.set()
    feeding.result()


def _wait_ends(stage: Stage, actor_id: str, number: int) -> None:
    deadline = time.monotonic() + RUN_SECONDS
    while len(stage.subscriber.ends(actor_id)) < number:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{actor_id}: not {number} runs within {RUN_SECONDS} s")
        time.sleep(LOOK_SECONDS)
