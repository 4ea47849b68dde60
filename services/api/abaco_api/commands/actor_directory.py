"""The directory: all actors' definitions, folded from the log in memory.

Commands are decided on it, so they never wait for Postgres. It follows ``actor.*`` events only:
what workers report is not in it, and the actors' states are not kept.
"""

import asyncio
import logging
from contextlib import aclosing

import msgspec
from msgspec.structs import replace

from abaco_jetstream.ports import EventLog
from abaco_proto import ids
from abaco_proto.actor import INITIAL, Actor, ActorStatus, evolve
from abaco_proto.envelope import Recorded, not_understood
from abaco_proto.errors import Unknown
from abaco_proto.subjects import actor_filter, actors_filter

logger = logging.getLogger(__name__)


class Entry(msgspec.Struct, frozen=True):
    """An actor, and the sequence of the last event of its definition's history.

    ``head`` is what an append must expect. It may be past ``actor.sequence``: an event that the
    fold does not know is in the log all the same.
    """

    actor: Actor
    head: int


UNSEEN = Entry(INITIAL, 0)


class Directory:
    """A fold that keeps itself up to date while :meth:`run` runs.

    ``subscribed`` is set when an actor was seen that subscribes to something.
    """

    def __init__(self, log: EventLog, tenant: str) -> None:
        self._log = log
        self._tenant = tenant
        self._entries: dict[str, Entry] = {}
        self._numbers: dict[str, int] = {}
        self._position = 0
        self._moved = asyncio.Event()
        self.caught_up = asyncio.Event()
        self.subscribed = asyncio.Event()

    async def run(self) -> None:
        """Fold history, then life, without end."""
        async with aclosing(self._log.follow([actors_filter(self._tenant)])) as batches:
            async for batch in batches:
                for recorded in batch.events:
                    if (said := not_understood(recorded)) is not None:
                        logger.warning("%s", said)
                    self.learn(recorded)
                    self._position = recorded.sequence
                    self._forget_deleted(recorded)
                if batch.caught_up:
                    self.caught_up.set()
                self._moved.set()
                self._moved = asyncio.Event()

    async def reach(self, sequence: int) -> None:
        """Wait until the event with this sequence, of whatever actor, is folded."""
        while self._position < sequence:
            await self._moved.wait()

    async def next_number(self, name: str) -> int:
        """The first number never used with a name, as far as is known."""
        await self.caught_up.wait()
        return self._numbers.get(name, 0)

    async def find(self, actor_id: str) -> Entry:
        """The entry of an actor that exists.

        One that was registered through another process may be in the log and not yet here: the
        log has the last word.
        """
        await self.caught_up.wait()
        if actor_id not in self._entries:
            await self.refresh(actor_id)
        entry = self._entries.get(actor_id, UNSEEN)
        if not entry.actor.exists:
            raise Unknown(f"actor_id: there is no actor {actor_id!r}")
        return entry

    async def known(self, actor_id: str) -> None:
        """Check that an actor exists, or did once: of one that was deleted only the log knows."""
        await self.caught_up.wait()
        if actor_id not in self._entries:
            last = await self._log.last(actor_filter(self._tenant, actor_id))
            if last is None:
                raise Unknown(f"actor_id: there is no actor {actor_id!r}")

    def is_subscribed(self, actor_id: str, subscription_id: str) -> bool:
        """Whether, as far as is known, a subscription has not ended."""
        actor = self._entries.get(actor_id, UNSEEN).actor
        return not actor.actor_id or (actor.exists and subscription_id in actor.subscriptions)

    async def refresh(self, actor_id: str) -> None:
        """Wait until all that the log holds of an actor now is folded."""
        last = await self._log.last(actor_filter(self._tenant, actor_id))
        if last is not None:
            await self.reach(last.sequence)

    def learn(self, recorded: Recorded) -> None:
        """Fold an event that this process appended itself, before it comes back from the log.

        It was appended expecting the entry's head, so nothing is between the two.
        """
        actor_id = recorded.subject.split(".")[3]
        known = self._entries.get(actor_id, UNSEEN)
        if recorded.sequence <= max(known.head, self._position):
            return
        actor = evolve(known.actor, recorded)
        if not actor.actor_id:
            return
        self._entries[actor_id] = Entry(replace(actor, state=""), recorded.sequence)
        if actor.subscriptions:
            self.subscribed.set()
        if ids.is_actor_id(actor_id):
            self.used(ids.actor_name(actor_id), ids.actor_number(actor_id))

    def _forget_deleted(self, recorded: Recorded) -> None:
        """Nothing is kept of an actor that was deleted, once all of its history was read."""
        actor_id = recorded.subject.split(".")[3]
        entry = self._entries.get(actor_id, UNSEEN)
        if entry.actor.status is ActorStatus.DELETED and entry.head <= self._position:
            del self._entries[actor_id]

    def used(self, name: str, number: int) -> None:
        """Know that a number of a name is taken."""
        self._numbers[name] = max(self._numbers.get(name, 0), number + 1)
