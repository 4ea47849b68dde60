"""The actor directories: all actors' definitions, folded from the log in memory, by tenant.

Commands are decided on them, so they do not wait for Postgres. They follow ``actor.*`` events only,
of all tenants with one consumer: they have no reports of workers and no actors' states.
"""

import asyncio
import logging
from contextlib import aclosing

import msgspec
from msgspec.structs import replace

from abaco_jetstream.ports import EventLog
from abaco_proto import names
from abaco_proto.actor import INITIAL, Actor, ActorStatus, evolve
from abaco_proto.envelope import Recorded, unrecognized_warning
from abaco_proto.errors import Unknown
from abaco_proto.names import actor_filter, actors_filter

logger = logging.getLogger(__name__)


class DirectoryEntry(msgspec.Struct, frozen=True):
    """An actor, and the sequence of the last event of its definition's history.

    ``head`` is what an append must expect. It may be past ``actor.sequence``: an event that the
    fold does not know is in the log all the same.
    """

    actor: Actor
    head: int


UNKNOWN_ACTOR = DirectoryEntry(INITIAL, 0)


class ActorDirectories:
    """Folds that keep themselves up to date while :meth:`run` runs, one for each tenant."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._directories: dict[str, ActorDirectory] = {}
        self._moved = asyncio.Event()
        self.position = 0
        self.caught_up = asyncio.Event()
        self.subscribed: asyncio.Queue[str] = asyncio.Queue()
        """Each tenant, once, as soon as one of its actors has a subscription."""

    def of(self, tenant: str) -> "ActorDirectory":
        """The directory of a tenant, which is empty if the log has no actor of it."""
        if tenant not in self._directories:
            self._directories[tenant] = ActorDirectory(self._log, tenant, self)
        return self._directories[tenant]

    async def run(self) -> None:
        """Fold the log to its end, then each event as it is appended, without end."""
        async with aclosing(self._log.follow([actors_filter("*")])) as batches:
            async for batch in batches:
                for recorded in batch.events:
                    if (warning := unrecognized_warning(recorded)) is not None:
                        logger.warning("%s", warning)
                    directory = self.of(recorded.tenant)
                    directory.apply(recorded)
                    self.position = recorded.sequence
                    directory.drop_deleted(recorded)
                if batch.caught_up:
                    self.caught_up.set()
                self._moved.set()
                self._moved = asyncio.Event()

    async def reach(self, sequence: int) -> None:
        """Wait until the event with this sequence, of any actor, is folded."""
        while self.position < sequence:
            await self._moved.wait()


class ActorDirectory:
    """The actors of one tenant."""

    def __init__(self, log: EventLog, tenant: str, directories: ActorDirectories) -> None:
        self._log = log
        self._tenant = tenant
        self._directories = directories
        self._entries: dict[str, DirectoryEntry] = {}
        self._numbers: dict[str, int] = {}
        self._is_subscribed = False
        self.caught_up = directories.caught_up

    @property
    def count(self) -> int:
        """How many actors there are, by the events folded so far."""
        return len(self._entries)

    async def next_number(self, name: str) -> int:
        """The first number never used with a name, by the events folded so far."""
        await self.caught_up.wait()
        return self._numbers.get(name, 0)

    async def find(self, actor_id: str) -> DirectoryEntry:
        """The entry of an actor that exists.

        An actor that another process has just registered may be in the log and not here yet, so an
        unknown one is looked up in the log.

        Raises:
            Unknown: there is no such actor.
        """
        await self.caught_up.wait()
        if actor_id not in self._entries:
            await self.refresh(actor_id)
        entry = self._entries.get(actor_id, UNKNOWN_ACTOR)
        if not entry.actor.exists:
            raise Unknown(f"actor_id: there is no actor {actor_id!r}")
        return entry

    async def check_registered(self, actor_id: str) -> None:
        """Check that an actor was ever registered, deleted or not.

        Raises:
            Unknown: it was not.
        """
        await self.caught_up.wait()
        if actor_id not in self._entries:
            last = await self._log.last(actor_filter(self._tenant, actor_id))
            if last is None:
                raise Unknown(f"actor_id: there is no actor {actor_id!r}")

    def is_subscribed(self, actor_id: str, subscription_id: str) -> bool:
        """Whether a subscription has not ended, by the events folded so far."""
        actor = self._entries.get(actor_id, UNKNOWN_ACTOR).actor
        return not actor.actor_id or (actor.exists and subscription_id in actor.subscriptions)

    async def refresh(self, actor_id: str) -> None:
        """Wait until all events that the log has of an actor now are folded."""
        last = await self._log.last(actor_filter(self._tenant, actor_id))
        if last is not None:
            await self._directories.reach(last.sequence)

    def apply(self, recorded: Recorded) -> None:
        """Fold an event, also one that this process appended and has not read from the log yet.

        It was appended on the condition of the entry's head, so there is no event between them.
        """
        actor_id = recorded.subject.split(".")[3]
        known = self._entries.get(actor_id, UNKNOWN_ACTOR)
        if recorded.sequence <= max(known.head, self._directories.position):
            return
        actor = evolve(known.actor, recorded)
        if not actor.actor_id:
            return
        self._entries[actor_id] = DirectoryEntry(replace(actor, state=""), recorded.sequence)
        if actor.subscriptions and not self._is_subscribed:
            self._is_subscribed = True
            self._directories.subscribed.put_nowait(self._tenant)
        if names.is_actor_id(actor_id):
            self.take_number(names.actor_name(actor_id), names.actor_number(actor_id))

    def drop_deleted(self, recorded: Recorded) -> None:
        """Drop the entry of a deleted actor once its history was read to the end."""
        actor_id = recorded.subject.split(".")[3]
        entry = self._entries.get(actor_id, UNKNOWN_ACTOR)
        if entry.actor.status is ActorStatus.DELETED and entry.head <= self._directories.position:
            del self._entries[actor_id]

    def take_number(self, name: str, number: int) -> None:
        """Note that a number of a name is used."""
        self._numbers[name] = max(self._numbers.get(name, 0), number + 1)
