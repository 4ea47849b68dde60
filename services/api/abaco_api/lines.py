"""Lines: who appends to one history in this process goes one after the other, served by one task.

Theory: optimistic concurrency keeps a history right, but many writers of one process would only
make one another try again. Each history that somebody wants to append to has a line, and a task
that serves it as long as somebody stands there. When the log does not answer the one in front, it
would not answer those behind either: they fail with it, so that nobody waits longer than one
timeout for a log that is away.

``turns`` does the same for what is seldom contended, with a lock and no task.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Generic, TypeVar

from abaco_api.turns import LINE_SECONDS
from abaco_proto.errors import Unavailable

Wish = TypeVar("Wish")
Answer = TypeVar("Answer")


class _Standing(Generic[Wish, Answer]):
    """Somebody in a line: what is wanted, since when, and where the answer goes."""

    __slots__ = ("answer", "since", "wish")

    def __init__(self, wish: Wish, since: float, answer: "asyncio.Future[Answer]") -> None:
        self.wish = wish
        self.since = since
        self.answer = answer

    def fail(self, error: BaseException) -> None:
        """Answer with an error, if anybody still waits for an answer."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Lines(Generic[Wish, Answer]):
    """Lines by key. ``serve`` carries out one wish; ``seconds`` is the most that it may take."""

    def __init__(self, serve: Callable[[str, Wish], Awaitable[Answer]], seconds: float) -> None:
        """Nobody stands anywhere."""
        self._serve = serve
        self._seconds = seconds
        self._lines: dict[str, deque[_Standing[Wish, Answer]]] = {}
        self._serving: set[asyncio.Task[None]] = set()

    async def stand(self, key: str, wish: Wish) -> Answer:
        """Wait in line, and for the answer.

        A wish whose turn has come is carried out, whether or not anybody still waits for it.

        Raises:
            Unavailable: the line was too long, or the log did not answer.
        """
        loop = asyncio.get_running_loop()
        standing = _Standing[Wish, Answer](wish, loop.time(), loop.create_future())
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = deque()
            # In a context of its own: what is said of this request is not said of the next.
            task = loop.create_task(self._serve_all(key, line), context=Context())
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
        line.append(standing)
        return await standing.answer

    async def _serve_all(self, key: str, line: deque[_Standing[Wish, Answer]]) -> None:
        """Serve a line until it is empty."""
        clock = asyncio.get_running_loop().time
        try:
            while line:
                standing = line.popleft()
                if standing.answer.done():
                    continue  # whoever asked has gone
                if clock() - standing.since > LINE_SECONDS:
                    standing.fail(Unavailable(f"too many requests wait for {key}"))
                elif not await self._served(key, standing):
                    for behind in line:
                        behind.fail(Unavailable("the log (NATS) did not answer"))
                    line.clear()
        finally:
            del self._lines[key]
            for behind in line:
                behind.fail(Unavailable("the service stops"))

    async def _served(self, key: str, standing: _Standing[Wish, Answer]) -> bool:
        """Serve one; False when the log did not answer."""
        try:
            async with asyncio.timeout(self._seconds):
                answer = await self._serve(key, standing.wish)
        except asyncio.TimeoutError:
            words = f"the log (NATS) did not answer within {self._seconds} s"
            standing.fail(Unavailable(words))
            return False
        except Exception as error:  # noqa: BLE001 - it is whoever's who asked
            standing.fail(error)
            return not isinstance(error, Unavailable)
        except BaseException:
            standing.fail(Unavailable("the service stops"))
            raise
        if not standing.answer.done():
            standing.answer.set_result(answer)
        return True
