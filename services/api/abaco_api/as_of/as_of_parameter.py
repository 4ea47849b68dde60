"""``as_of``: the moment of the past that it means.

A sequence means the log up to and including it. A time means the log up to the last event, in the
order of the log, that is not later than the time. Events carry their appenders' clocks, so a later
event may have an earlier time; with this rule a later moment still never means less of the log.
"""

import asyncio
from contextlib import aclosing
from datetime import datetime

import msgspec

from abaco_api.api_errors import BadParameter, Behind
from abaco_api.as_of.fold_slots import FoldSlots
from abaco_api.as_of.full_fold import FullFold
from abaco_api.as_of.indexed_answers import IndexedAnswers
from abaco_api.as_of.past_read_models import PastReadModels
from abaco_api.http.parameters import whole_number
from abaco_api.queries.freshness import CheckpointPoller
from abaco_api.queries.past_rows import PastRows
from abaco_api.queries.read_models import ReadModels
from abaco_api.streams.events.event_query import MAX_SEQUENCE, moment
from abaco_jetstream.ports import EventLog
from abaco_proto.errors import Unavailable
from abaco_proto.names import all_events_filter

AS_OF = "as_of"


class Stores(msgspec.Struct, frozen=True):
    """What is in Postgres, and how far it is."""

    models: ReadModels
    rows: PastRows
    checkpoint: CheckpointPoller


class PastFinder:
    """Finds the moment that ``as_of`` means. A time needs the read models, a sequence does not."""

    def __init__(
        self, log: EventLog, stores: Stores, tenant: str, *, seconds: float, slots: FoldSlots
    ) -> None:
        """An answer may take ``seconds``, and holds one of the slots while it is made."""
        self._log = log
        self._models = stores.models
        self._rows = stores.rows
        self._checkpoint = stores.checkpoint
        self._tenant = tenant
        self._seconds = seconds
        self.slots = slots

    async def at(self, text: str) -> PastReadModels:
        """The read models at the moment that ``as_of`` means.

        Raises:
            BadParameter: it is neither a sequence of the log nor a time.
            Unavailable: the log, or for a time Postgres, does not answer.
        """
        if text.isascii() and text.isdecimal():
            sequence = whole_number(AS_OF, text, least=0, most=MAX_SEQUENCE)
            if sequence > (head := await self.head()):
                raise BadParameter(AS_OF, f"{sequence}, but the log ends at {head}")
        else:
            sequence = await self._sequence_of(_time(text))
        indexed = await self.indexed(sequence)
        return PastReadModels(self.fold_to(sequence), indexed, self._seconds, self.slots)

    def fold_to(self, sequence: int) -> FullFold:
        """The fold of the log up to a sequence."""
        return FullFold(self._log, self._tenant, sequence)

    async def head(self) -> int:
        """The last sequence of the log."""
        last = await self._log.last(all_events_filter())
        return last.sequence if last is not None else 0

    async def indexed(self, sequence: int) -> IndexedAnswers | None:
        """Answers from Postgres; None when it does not answer, or has not projected so much."""
        try:
            await self._checkpoint.reach(sequence)
        except (Behind, Unavailable):
            return None
        return IndexedAnswers(self._rows, self._tenant, sequence)

    async def _sequence_of(self, time: datetime) -> int:
        """What is projected is looked up; the rest is read from the log."""
        projected = await self._models.checkpoint()
        found = await self._models.last_event_at(time)
        if await self.head() <= projected:
            return found
        async with self.slots.slot():
            try:
                async with asyncio.timeout(self._seconds):
                    return max(found, await self._last_behind(projected, time))
            except TimeoutError:
                what = f"the events after {projected} were not read within {self._seconds} s"
                raise Unavailable(f"{AS_OF}: {what}") from None

    async def _last_behind(self, projected: int, time: datetime) -> int:
        """Of the events after a sequence that are not later, the last; 0 when there is none."""
        found = 0
        async with aclosing(self._log.read([all_events_filter()], after=projected)) as batches:
            async for batch in batches:
                found = max([found, *(r.sequence for r in batch if r.time <= time)])
        return found


def _time(text: str) -> datetime:
    try:
        return moment(AS_OF, text)
    except BadParameter as error:
        what = str(error).removeprefix(f"{AS_OF}: ")
        raise BadParameter(AS_OF, f"{what}, or a sequence of the log") from None
