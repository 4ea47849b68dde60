"""Appending what must be appended, however long the log is away."""

import asyncio

from abaco_jetstream.ports import EventLog
from abaco_proto.envelope import Draft
from abaco_proto.errors import Unavailable
from abaco_proto.subjects import event_subject


async def append_surely(log: EventLog, draft: Draft, *, after: int, pause: float = 0.5) -> int:
    """Append an event however long the log is away, once.

    For facts that are true whether or not the log can be reached. A retry looks first whether the
    event is there already, in the history after the sequence ``after``: the log's own memory for
    duplicates lasts minutes, an outage may last longer.
    """
    subject = event_subject(draft.tenant, draft.event)
    while True:
        try:
            return await log.append(draft)
        except Unavailable:
            await asyncio.sleep(pause)
        try:
            async for batch in log.read([subject], after=after):
                for recorded in batch:
                    if recorded.id == draft.id:
                        return recorded.sequence
        except Unavailable:
            continue
