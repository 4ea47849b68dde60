"""Room in the inboxes: how many messages wait, as far as the log tells at no cost.

Messages begin in the order of their inbox, so behind the last one that was handed to a worker all
wait. That one, and the last purge, are two reads, made only when an inbox seems full by what was
known before. A message that is tried again long after its turn hides how far the inbox is; then the
read models know better. They are asked by who would be refused otherwise, and seldom.
"""

import asyncio
from collections import OrderedDict
from contextlib import suppress

from abaco_api.http.http_errors import InboxFull
from abaco_api.queries.read_models import ReadModels
from abaco_jetstream.ports import EventLog
from abaco_proto import events as ev
from abaco_proto import ids
from abaco_proto.errors import Unavailable, Unknown
from abaco_proto.subjects import assignments_filter, type_filter

REMEMBERED = 10_000
ASK_SECONDS = 1.0
NOBODY = 10**15
ENDS = ("total_complete", "total_error", "total_halted", "total_purged")


class Room:
    """The room in all inboxes, ``most`` messages each."""

    def __init__(self, log: EventLog, models: ReadModels, tenant: str, most: int) -> None:
        self._log = log
        self._models = models
        self._tenant = tenant
        self._most = most
        self._behind: OrderedDict[str, int] = OrderedDict()
        self._asked_at: OrderedDict[str, float] = OrderedDict()

    def check(self, actor_id: str, next_ordinal: int) -> None:
        """Refuse one message more than there is room for, by what is known.

        Raises:
            InboxFull: too many wait.
        """
        waiting = next_ordinal - self._behind.get(actor_id, 0)
        if waiting >= self._most:
            raise InboxFull(f"{waiting} messages wait for {actor_id}, at most {self._most}")

    async def look(self, actor_id: str) -> None:
        """Know how many messages wait now."""
        known = (
            self._behind.pop(actor_id, 0),
            await self._handed_out(actor_id),
            await self._purged(actor_id),
            await self._ended(actor_id),
        )
        self._behind[actor_id] = max(known)
        if len(self._behind) > REMEMBERED:
            self._behind.popitem(last=False)

    async def _handed_out(self, actor_id: str) -> int:
        """How many messages, from the first on, were handed to workers, retries left aside."""
        last = await self._log.last(assignments_filter(self._tenant, actor_id))
        execution_id = getattr(last.event, "execution_id", "") if last is not None else ""
        ordinal = ids.execution_ordinal(execution_id, actor_id)
        return 0 if ordinal is None else ordinal + 1

    async def _purged(self, actor_id: str) -> int:
        last = await self._log.last(type_filter(self._tenant, actor_id, ev.InboxPurged))
        event = last.event if last is not None else None
        return event.up_to_ordinal + 1 if isinstance(event, ev.InboxPurged) else 0

    async def _ended(self, actor_id: str) -> int:
        """How many executions have ended, if it is time to ask, and there is an answer."""
        now = asyncio.get_running_loop().time()
        if now - self._asked_at.get(actor_id, float("-inf")) < ASK_SECONDS:
            return 0
        self._asked_at[actor_id] = now
        self._asked_at.move_to_end(actor_id)
        if len(self._asked_at) > REMEMBERED:
            self._asked_at.popitem(last=False)
        with suppress(Unavailable, Unknown):
            row = await self._models.executions(actor_id, 1, NOBODY)
            return sum(row[total] for total in ENDS)
        return 0
