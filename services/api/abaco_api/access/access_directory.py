"""The access directories: permissions, API tokens and nonces, folded from the log, by tenant.

Every process has them, so that a revocation takes effect everywhere as soon as its event is
delivered, and no request waits for Postgres. One consumer reads the events of all tenants, so a new
tenant is known with its first event.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import aclosing
from datetime import UTC, datetime

from abaco_api.access.domain.access_fold import (
    AccessFold,
    Nonce,
    Token,
    permissions_of_history,
)
from abaco_api.access.domain.decide_access import Permissions
from abaco_api.api_errors import TooMany
from abaco_jetstream.ports import EventLog
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Unavailable
from abaco_proto.names import (
    NONCE_ACTOR_PREFIX,
    TOKEN_ACTOR_PREFIX,
    token_filter,
    tokens_filter,
    type_filter,
)

MAX_DELETED = 1000
"""Deleted actors of a tenant whose permissions are kept in memory; others are read again."""

MAX_TENANTS = 10_000
"""Beyond so many tenants, credentials of one that the log does not know yet are refused."""

KINDS = (
    *(ev.ActorRegistered, ev.ActorDeleted, ev.PermissionSet),
    *(ev.NonceCreated, ev.NonceDeleted),
)


class AccessDirectories:
    """Folds that keep themselves up to date while :meth:`run` runs, one for each tenant."""

    def __init__(self, log: EventLog, *, seconds: float) -> None:
        """``seconds`` is how long a request waits for the folds, or for the log."""
        self.log = log
        self._seconds = seconds
        self._position = 0
        self._moved = asyncio.Event()
        self._directories: dict[str, AccessDirectory] = {}
        self._tenants_of: dict[str, frozenset[str]] = {}
        """By the source of a credential's events: ``_token-<id>``, ``_nonce-<id>``."""
        self._caught_up = asyncio.Event()

    def check_tenant(self, tenant: str) -> None:
        """Check that the tenant of a credential can be served.

        Raises:
            TooMany: the log has no event of it, and there are ``MAX_TENANTS`` others.
        """
        if tenant not in self._directories and len(self._directories) >= MAX_TENANTS:
            raise TooMany(f"there are {MAX_TENANTS} tenants already, the most of this process")

    def of(self, tenant: str) -> "AccessDirectory":
        """The directory of a tenant, which is empty if the log has no event of it."""
        if tenant not in self._directories:
            self._directories[tenant] = AccessDirectory(self, tenant)
        return self._directories[tenant]

    async def run(self) -> None:
        """Fold the log to its end, then each event as it is appended, without end."""
        filters = [tokens_filter("*"), *(type_filter("*", "*", kind) for kind in KINDS)]
        async with aclosing(self.log.follow(filters)) as batches:
            async for batch in batches:
                for recorded in batch.events:
                    self.apply(recorded)
                    self._position = recorded.sequence
                self._drop_expired(datetime.now(UTC))
                if batch.caught_up:
                    self._caught_up.set()
                self._moved.set()
                self._moved = asyncio.Event()

    def apply(self, recorded: Recorded) -> None:
        """Apply an event, also one that this process appended and has not read yet."""
        directory, tenant, event = self.of(recorded.tenant), recorded.tenant, recorded.event
        if isinstance(event, ev.ActorDeleted):
            for nonce in directory.fold.nonces(event.actor_id):
                self._forget(tenant, NONCE_ACTOR_PREFIX + nonce.nonce_id)
        if directory.fold.apply(recorded):
            directory.wake()
        match event:
            case ev.TokenCreated(token_id=token_id):
                self._add(tenant, TOKEN_ACTOR_PREFIX + token_id)
            case ev.TokenRevoked(token_id=token_id):
                self._forget(tenant, TOKEN_ACTOR_PREFIX + token_id)
            case ev.NonceCreated(nonce_id=nonce_id) if directory.fold.nonce(nonce_id) is not None:
                self._add(tenant, NONCE_ACTOR_PREFIX + nonce_id)
            case ev.NonceDeleted(nonce_id=nonce_id):
                self._forget(tenant, NONCE_ACTOR_PREFIX + nonce_id)

    def tokens(self, token_id: str) -> Iterator[tuple[str, Token]]:
        """The tokens with an id, and their tenants. Ids are unique within a tenant only."""
        for tenant in self._tenants_of.get(TOKEN_ACTOR_PREFIX + token_id, ()):
            token = self.of(tenant).fold.token(token_id)
            if token is not None:
                yield tenant, token

    def nonces(self, nonce_id: str) -> Iterator[tuple[str, Nonce]]:
        """The nonces with an id, and their tenants."""
        for tenant in self._tenants_of.get(NONCE_ACTOR_PREFIX + nonce_id, ()):
            nonce = self.of(tenant).fold.nonce(nonce_id)
            if nonce is not None:
                yield tenant, nonce

    async def refresh_token(self, token_id: str) -> None:
        """Wait until the events that the log has now of an id, of any tenant, are folded."""
        await self.refresh(token_filter("*", token_id))

    async def refresh_nonce(self, nonce_id: str) -> None:
        """The same of the creations of a nonce."""
        await self.refresh(type_filter("*", NONCE_ACTOR_PREFIX + nonce_id, ev.NonceCreated))

    async def ready(self) -> None:
        """Wait until the folds have reached the end of the log once.

        Raises:
            Unavailable: it takes too long: nobody can be let in.
        """
        if self._caught_up.is_set():
            return
        try:
            async with asyncio.timeout(self._seconds):
                await self._caught_up.wait()
        except TimeoutError:
            raise Unavailable("the permissions are still being read") from None

    async def refresh(self, filter_: str) -> int:
        """Wait until the events that the log has now of a filter are folded.

        Returns the sequence of the last of them; 0 if there is none.

        Raises:
            Unavailable: the log does not answer in time.
        """
        last = await self.log.last(filter_)
        if last is None:
            return 0
        try:
            async with asyncio.timeout(self._seconds):
                while self._position < last.sequence:
                    await self._moved.wait()
        except TimeoutError:
            raise Unavailable("the permissions are behind the log") from None
        return last.sequence

    def _drop_expired(self, now: datetime) -> None:
        for tenant, directory in self._directories.items():
            for token_id in directory.fold.drop_expired(now):
                self._forget(tenant, TOKEN_ACTOR_PREFIX + token_id)

    def _add(self, tenant: str, source: str) -> None:
        self._tenants_of[source] = self._tenants_of.get(source, frozenset()) | {tenant}

    def _forget(self, tenant: str, source: str) -> None:
        kept = self._tenants_of.get(source, frozenset()) - {tenant}
        if kept:
            self._tenants_of[source] = kept
        else:
            self._tenants_of.pop(source, None)


class AccessDirectory:
    """The permissions, API tokens and nonces of one tenant."""

    def __init__(self, directories: AccessDirectories, tenant: str) -> None:
        self._directories = directories
        self._tenant = tenant
        self._deleted: OrderedDict[str, Permissions] = OrderedDict()
        self.fold = AccessFold()
        self.apply = directories.apply
        self.ready = directories.ready
        self.refresh = directories.refresh
        self.reduced = asyncio.Event()
        """Set, and replaced, whenever somebody may do less than before."""

    def wake(self) -> None:
        """Wake all that wait for ``reduced``."""
        self.reduced.set()
        self.reduced = asyncio.Event()

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
        return type_filter(self._tenant, actor_id, kind)

    async def _permissions_of_deleted(self, actor_id: str) -> Permissions:
        if actor_id not in self._deleted:
            kinds = (ev.ActorRegistered, ev.PermissionSet)
            filters = [self._filter(actor_id, kind) for kind in kinds]
            history: list[Recorded] = []
            async with aclosing(self._directories.log.read(filters)) as batches:
                async for batch in batches:
                    history += batch
            self._deleted[actor_id] = permissions_of_history(history)
            while len(self._deleted) > MAX_DELETED:
                self._deleted.popitem(last=False)
        return self._deleted[actor_id]
