"""The read models as they were at a moment: the same questions as to the live ones."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from abaco_api.as_of.fold_slots import FoldSlots
from abaco_api.as_of.full_fold import FullFold
from abaco_api.as_of.indexed_answers import IndexedAnswers, NotIndexed
from abaco_api.domain.views import Row
from abaco_proto.errors import Unavailable

SHORT_EVENTS = 1000
"""An actor's history of no more events is folded: that takes some 30 ms."""

Answer = TypeVar("Answer")


class Answers(Protocol):
    """One way to answer questions about the past."""

    async def actor(self, actor_id: str) -> Row:
        """An actor, with its subscriptions."""
        ...

    async def actors(
        self, limit: int, offset: int, after_row: Row | None, only: Sequence[str] | None = None
    ) -> Sequence[Row]:
        """All actors, in the order of their registration: a piece of the list, after a row."""
        ...

    async def subscriptions(self, actor_id: str) -> Sequence[Row]:
        """An actor's subscriptions."""
        ...

    async def waiting(self, actor_id: str) -> int:
        """How many messages wait."""
        ...

    async def executions(self, actor_id: str, limit: int, offset: int) -> Row:
        """An actor's totals, with the ``ids`` of a page of its executions."""
        ...

    async def execution(self, actor_id: str, ordinal: int) -> Row:
        """One execution, of a deleted actor, too."""
        ...

    async def workers(self, actor_id: str) -> Sequence[Row]:
        """An actor's workers that were live."""
        ...

    async def worker(self, actor_id: str, worker_id: str) -> Row:
        """A worker, live or not."""
        ...


class PastReadModels:
    """The read models as they were when the log ended at ``sequence``.

    Every answer raises ``Unknown`` when what is named was not there then, ``Unavailable`` when
    the log does not answer or the answer takes more than ``seconds``, and ``TooMany`` when the
    process makes as many answers from history as it may.
    """

    def __init__(
        self, fold: FullFold, indexed: IndexedAnswers | None, seconds: float, slots: FoldSlots
    ) -> None:
        """Without ``indexed``, which needs Postgres, all is folded from the log."""
        self.sequence = fold.sequence
        self._fold = fold
        self._indexed = indexed
        self._seconds = seconds
        self._slots = slots

    async def actor(self, actor_id: str) -> Row:
        """An actor, with its subscriptions."""
        return await self._answer(lambda way: way.actor(actor_id))

    async def actors(
        self,
        limit: int,
        offset: int,
        *,
        after_row: Row | None = None,
        only: Sequence[str] | None = None,
    ) -> Sequence[Row]:
        """All actors, in the order of their registration: a piece of the list, after a row.

        With ``only``, those with these ids.
        """
        return await self._answer(lambda way: way.actors(limit, offset, after_row, only))

    async def subscriptions(self, actor_id: str) -> Sequence[Row]:
        """An actor's subscriptions."""
        return await self._answer(lambda way: way.subscriptions(actor_id))

    async def waiting(self, actor_id: str) -> int:
        """How many messages wait."""
        return await self._answer(lambda way: way.waiting(actor_id), actor_id)

    async def executions(self, actor_id: str, limit: int, offset: int) -> Row:
        """An actor's totals, with the ``ids`` of a page of its executions."""
        return await self._answer(lambda way: way.executions(actor_id, limit, offset), actor_id)

    async def execution(self, actor_id: str, ordinal: int) -> Row:
        """One execution, of a deleted actor, too."""
        return await self._answer(lambda way: way.execution(actor_id, ordinal), actor_id)

    async def workers(self, actor_id: str) -> Sequence[Row]:
        """An actor's workers that were live."""
        return await self._answer(lambda way: way.workers(actor_id), actor_id)

    async def worker(self, actor_id: str, worker_id: str) -> Row:
        """A worker, live or not."""
        return await self._answer(lambda way: way.worker(actor_id, worker_id), actor_id)

    async def _answer(
        self, ask: Callable[[Answers], Awaitable[Answer]], history_of: str | None = None
    ) -> Answer:
        """Answer from indexes if that is possible, and if the history of an actor is not short."""
        async with self._slots.slot():
            try:
                async with asyncio.timeout(self._seconds):
                    return await self._answered(ask, history_of)
            except TimeoutError:
                what = f"the history up to event {self.sequence} was not read"
                raise Unavailable(f"as_of: {what} within {self._seconds} s") from None

    async def _answered(
        self, ask: Callable[[Answers], Awaitable[Answer]], history_of: str | None
    ) -> Answer:
        indexed = self._indexed
        if indexed is not None:
            try:
                if history_of is None or await indexed.is_long(history_of, SHORT_EVENTS):
                    return await ask(indexed)
            except (NotIndexed, Unavailable):
                pass
        return await ask(self._fold)
