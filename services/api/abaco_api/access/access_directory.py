"""The access directory: permissions and API tokens, folded from the log in memory.

Every process has one, so that a revocation takes effect everywhere as soon as its event is
delivered, and no request waits for Postgres.
"""

import asyncio
from collections import OrderedDict
from contextlib import aclosing
from datetime import UTC, datetime

from abaco_api.access.domain.access_fold import AccessFold, permissions_of_history
from abaco_api.access.domain.decide_access import Permissions
from abaco_jetstream.ports import EventLog
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Unavailable
from abaco_proto.names import tokens_filter, type_filter

MAX_DELETED = 1000
"""Deleted actors whose permissions are kept in memory; those of others are read again."""


class AccessDirectory:
    """A fold that keeps itself up to date while :meth:`run` runs."""

    def __init__(self, log: EventLog, tenant: str, *, seconds: float) -> None:
        """``seconds`` is how long a request waits for the fold, or for the log."""
        self._log = log
        self.tenant = tenant
        self._seconds = seconds
        self._position = 0
        self._moved = asyncio.Event()
        self._deleted: OrderedDict[str, Permissions] = OrderedDict()
        self.fold = AccessFold()
        self.caught_up = asyncio.Event()
        self.reduced = asyncio.Event()
        """Set, and replaced, whenever somebody may do less than before."""

    async def run(self) -> None:
        """Fold the log to its end, then each event as it is appended, without end."""
        filters = [
            tokens_filter(self.tenant),
            *(
                self._filter("*", kind)
                for kind in (ev.ActorRegistered, ev.ActorDeleted, ev.PermissionSet)
            ),
        ]
        async with aclosing(self._log.follow(filters)) as batches:
            async for batch in batches:
                for recorded in batch.events:
                    self.apply(recorded)
                    self._position = recorded.sequence
                self.fold.drop_expired(datetime.now(UTC))
                if batch.caught_up:
                    self.caught_up.set()
                self._moved.set()
                self._moved = asyncio.Event()

    def apply(self, recorded: Recorded) -> None:
        """Apply an event, also one that this process appended and has not read yet."""
        if self.fold.apply(recorded):
            self.reduced.set()
            self.reduced = asyncio.Event()

    async def ready(self) -> None:
        """Wait until the fold has reached the end of the log once.

        Raises:
            Unavailable: it takes too long: nobody can be let in.
        """
        if self.caught_up.is_set():
            return
        try:
            async with asyncio.timeout(self._seconds):
                await self.caught_up.wait()
        except TimeoutError:
            raise Unavailable("the permissions are still being read") from None

    async def refresh(self, filter_: str) -> int:
        """Wait until the events that the log has now of a filter are folded.

        Returns the sequence of the last of them; 0 if there is none.

        Raises:
            Unavailable: the log does not answer in time.
        """
        last = await self._log.last(filter_)
        if last is None:
            return 0
        try:
            async with asyncio.timeout(self._seconds):
                while self._position < last.sequence:
                    await self._moved.wait()
        except TimeoutError:
            raise Unavailable("the permissions are behind the log") from None
        return last.sequence

    async def permissions(self, actor_id: str) -> Permissions:
        """The permissions of an actor, also of one that was deleted or has just been registered.

        Raises:
            Unavailable: as ``ready`` and ``refresh``.
        """
        await self.ready()
        if actor_id in self.fold:
            return self.fold.permissions(actor_id).levels
        if actor_id in self._deleted:
            return self._deleted[actor_id]
        return await self.latest_permissions(actor_id)

    async def latest_permissions(self, actor_id: str) -> Permissions:
        """The same, with all events that the log has now.

        It takes as long for an actor that there is as for one that there is not.
        """
        # Only filters of events that are folded here: the wait ends when they are.
        is_registered = await self.refresh(self._filter(actor_id, ev.ActorRegistered))
        await self.refresh(self._filter(actor_id, ev.PermissionSet))
        await self.refresh(self._filter(actor_id, ev.ActorDeleted))
        if not is_registered:
            return {}
        if actor_id in self.fold:
            return self.fold.permissions(actor_id).levels
        return await self._permissions_of_deleted(actor_id)

    def _filter(self, actor_id: str, kind: type[ev.Event]) -> str:
        return type_filter(self.tenant, actor_id, kind)

    async def _permissions_of_deleted(self, actor_id: str) -> Permissions:
        if actor_id not in self._deleted:
            kinds = (ev.ActorRegistered, ev.PermissionSet)
            filters = [self._filter(actor_id, kind) for kind in kinds]
            history: list[Recorded] = []
            async with aclosing(self._log.read(filters)) as batches:
                async for batch in batches:
                    history += batch
            self._deleted[actor_id] = permissions_of_history(history)
            while len(self._deleted) > MAX_DELETED:
                self._deleted.popitem(last=False)
        return self._deleted[actor_id]
