"""Writers that race for the next ordinal of an inbox, and followers, until they are cancelled.

Acknowledged events are kept, to be compared with the servers at the end.
"""

import asyncio
from contextlib import aclosing

import builders as b
from abaco_jetstream import Connection, JetStreamEventLog
from abaco_proto import events as ev
from abaco_proto.envelope import Draft, Expected, Recorded, draft
from abaco_proto.errors import Conflict, Unavailable
from abaco_proto.names import all_events_filter, inbox_filter

TENANT = "default"
PAUSE_SECONDS = 0.01


class Writer:
    """Takes the next ordinal of one inbox, over and over, as the api does."""

    def __init__(self, connection: Connection, name: str, actor_id: str) -> None:
        """Nothing is written yet."""
        self.acknowledged: dict[int, Draft] = {}
        self._connection = connection
        self._log = JetStreamEventLog(connection)
        self._refusal = ""
        self._name = name
        self._actor_id = actor_id
        self._tries = 0

    def __str__(self) -> str:
        """Its progress, for the message of a test that fails."""
        client = self._connection.client
        where = client.connected_url.netloc if client.connected_url else "no server"
        return f"{self._name} at {where}: {len(self.acknowledged)} acknowledged, {self._refusal}"

    async def run(self) -> None:
        """Write until cancelled."""
        inbox = inbox_filter(TENANT, self._actor_id)
        while True:
            try:
                last = await self._log.last(inbox)
            except Unavailable as error:
                self._refusal = f"no last event: {error}"
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            expected = Expected(filter=inbox, sequence=last.sequence if last else 0)
            await self._write(self._next_draft(last), expected)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _write(self, drafted: Draft, expected: Expected) -> None:
        """Until it is known whether it is in the log: the same draft again where it is not."""
        while True:
            try:
                sequence = await self._log.append(drafted, expected=expected)
            except Unavailable as error:
                self._refusal = f"not appended: {error}"
                await asyncio.sleep(PAUSE_SECONDS)
            except Conflict:
                return
            else:
                self.acknowledged[sequence] = drafted
                return

    def _next_draft(self, last: Recorded | None) -> Draft:
        self._tries += 1
        ordinal = 0
        if last is not None and isinstance(last.event, ev.MessageReceived):
            ordinal = last.event.ordinal + 1
        event = b.received(ordinal, self._actor_id)
        cause = f"{self._name}-{self._tries}"
        return draft(event, tenant=TENANT, time=b.T0, causation_id=cause)


class Follower:
    """Sees every event."""

    def __init__(self, connection: Connection) -> None:
        """Nothing is seen yet."""
        self.seen: list[int] = []
        self._log = JetStreamEventLog(connection)

    async def run(self) -> None:
        """Follow until cancelled."""
        async with aclosing(self._log.follow([all_events_filter()])) as batches:
            async for batch in batches:
                self.seen += [recorded.sequence for recorded in batch.events]
