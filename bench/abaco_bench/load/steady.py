"""A small steady load: messages and queries on a clock, whatever the answers take.

A request's time counts from the moment that it should have been sent: one that waited for a free
connection waited for the api.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence

from abaco_bench.load.wire import Wire, connect

CONNECTIONS = 32

Request = tuple[str, str, str]
"""Method, path and form."""


async def load(port: int, requests: Sequence[Request], per_second: float) -> dict[str, list[float]]:
    """Send them in their order; the milliseconds that each took, by method."""
    wires: asyncio.Queue[Wire] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        wires.put_nowait(await connect(port))
    times: dict[str, list[float]] = {method: [] for method, _, _ in requests}

    async def one(request: Request, due: float) -> None:
        wire = await wires.get()
        await wire.result(*request)
        times[request[0]].append((time.perf_counter() - due) * 1000)
        wires.put_nowait(wire)

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for n, request in enumerate(requests):
            due = begun + n / per_second
            await asyncio.sleep(max(due - time.perf_counter(), 0.0))
            tasks.create_task(one(request, due))
    while not wires.empty():
        wires.get_nowait().close()
    return times


def messages_and_queries(actors: int, runs: int, count: int) -> Iterator[Request]:
    """``count`` messages and as many queries in turns, spread over all there is.

    Messages go to at most 50 actors, every second one of a hundred; queries are about executions
    of the others, each of which has ``runs`` of them: so no query waits for a message of this
    load, and the same number of inboxes is new to the api, however many actors there are.
    """
    step = max(actors // 100, 1)
    posted = range(0, actors, 2 * step)
    asked = range(step, actors, 2 * step)
    for n in range(count):
        yield "POST", f"/actors/bench_{posted[n % len(posted)]}/messages", "message=execute"
        actor_id = f"bench_{asked[n % len(asked)]}"
        yield "GET", f"/actors/{actor_id}/executions/{actor_id}_exc_{n * 7 % runs}", ""
