"""The fold of permissions, API tokens and nonces, for one tenant. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime
from heapq import heappop, heappush

import msgspec
from msgspec.structs import replace

from abaco_api.access.domain.decide_access import Permissions
from abaco_api.access.domain.principal import WORLD, Principal, PrincipalKind, Role, at_least
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded, parse_time
from abaco_proto.events import PermissionLevel


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """An API token that is not revoked. ``head`` is the sequence of its last event."""

    token_id: str
    sha256: str
    name: str
    owner: str
    roles: frozenset[Role]
    read_only: bool
    actors: frozenset[str] | None
    created_at: datetime
    expires_at: datetime
    created_by: str
    last_used: date | None = None
    head: int = 0

    def principal(self, tenant: str) -> Principal:
        """Who sends a request with it."""
        return Principal(
            kind=PrincipalKind.TOKEN,
            id=self.token_id,
            user=self.owner,
            tenant=tenant,
            roles=self.roles,
            read_only=self.read_only,
            actors=self.actors,
            expires_at=self.expires_at,
        )


class Nonce(msgspec.Struct, frozen=True, kw_only=True):
    """A nonce that is not deleted, used up or not. ``max_uses`` -1 is any number.

    Its uses are not folded: its last event has their number.
    """

    nonce_id: str
    actor_id: str
    sha256: str
    level: PermissionLevel
    max_uses: int
    description: str
    owner: str
    created_at: datetime

    def principal(self, tenant: str) -> Principal:
        """Who sends a request with it: nobody but the nonce itself, with its own level only."""
        return Principal(
            kind=PrincipalKind.NONCE,
            id=self.nonce_id,
            user="",
            tenant=tenant,
            actors=frozenset({self.actor_id}),
            level=self.level,
        )


class ActorPermissions(msgspec.Struct, frozen=True):
    """The levels on one actor, by user, and the sequence of the last event with one.

    Who has no level is not in it, so that revocations leave nothing.
    """

    levels: dict[str, PermissionLevel]
    head: int = 0


NOBODY = ActorPermissions({})


class AccessFold:
    """The permissions of all actors, all tokens, and the nonces of actors that are not deleted.

    Applying an event again changes nothing.
    """

    def __init__(self) -> None:
        self._actors: dict[str, ActorPermissions] = {}
        self._readable: dict[str, set[str]] = {}
        self._tokens: dict[str, Token] = {}
        self._of_owner: dict[str, set[str]] = {}
        self._expiring: list[tuple[datetime, str]] = []
        self._nonces: dict[str, Nonce] = {}
        self._of_actor: dict[str, set[str]] = {}

    def __contains__(self, actor_id: str) -> bool:
        """Whether the actor is known and not deleted."""
        return actor_id in self._actors

    def permissions(self, actor_id: str) -> ActorPermissions:
        """The permissions of an actor; none of an unknown one."""
        return self._actors.get(actor_id, NOBODY)

    def readable(self, user: str) -> set[str]:
        """The actors that a user may read without a role."""
        return self._readable.get(user, set()) | self._readable.get(WORLD, set())

    def token(self, token_id: str) -> Token | None:
        """A token, expired or not; None if it is unknown or revoked."""
        return self._tokens.get(token_id)

    def tokens(self, owner: str | None = None) -> Iterator[Token]:
        """The tokens of an owner, or all, the oldest first."""
        found = self._of_owner.get(owner, set()) if owner is not None else set(self._tokens)
        yield from sorted(
            (self._tokens[token_id] for token_id in found), key=lambda token: token.created_at
        )

    def nonce(self, nonce_id: str) -> Nonce | None:
        """A nonce; None if it is unknown or deleted, or its actor is."""
        return self._nonces.get(nonce_id)

    def nonces(self, actor_id: str) -> Sequence[Nonce]:
        """The nonces of an actor, the oldest first."""
        found = self._of_actor.get(actor_id, set())
        return sorted((self._nonces[n] for n in found), key=lambda nonce: nonce.created_at)

    def apply(self, recorded: Recorded) -> bool:
        """Apply an event; return whether somebody may do less than before."""
        event = recorded.event
        match event:
            case ev.ActorRegistered():
                return self._registered(event)
            case ev.PermissionSet():
                return self._set(event, recorded.sequence)
            case ev.ActorDeleted():
                return self._deleted(event.actor_id)
            case ev.TokenCreated():
                return self._created(event, recorded)
            case ev.TokenRevoked():
                return self._revoked(event.token_id)
            case ev.TokenUsed():
                self._used(event, recorded.sequence)
            case ev.NonceCreated():
                self._nonce_created(event, recorded.time)
            case ev.NonceDeleted():
                return self._nonce_deleted(event.nonce_id)
        return False

    # -- permissions -----------------------------------------------------------------------------

    def _registered(self, event: ev.ActorRegistered) -> bool:
        if event.actor_id not in self._actors:
            has_owner = isinstance(event.owner, str) and event.owner
            levels = {str(event.owner): PermissionLevel.UPDATE} if has_owner else {}
            self._replace(event.actor_id, ActorPermissions(levels))
        return False

    def _set(self, event: ev.PermissionSet, sequence: int) -> bool:
        known = self._actors.get(event.actor_id)
        if known is None or sequence <= known.head:
            return False
        before = known.levels.get(event.user, PermissionLevel.NONE)
        levels = {**known.levels, event.user: event.level}
        if event.level is PermissionLevel.NONE:
            del levels[event.user]
        self._replace(event.actor_id, ActorPermissions(levels, sequence))
        return not at_least(event.level, before)

    def _deleted(self, actor_id: str) -> bool:
        if actor_id not in self._actors:
            return False
        self._replace(actor_id, NOBODY)
        del self._actors[actor_id]
        for nonce_id in self._of_actor.pop(actor_id, set()):
            del self._nonces[nonce_id]
        return True

    def _replace(self, actor_id: str, permissions: ActorPermissions) -> None:
        """Replace an actor's permissions, and keep the index of readable actors."""
        before = self._actors.get(actor_id, NOBODY).levels.keys()
        for user in before - permissions.levels.keys():
            self._forget(user, actor_id)
        for user in permissions.levels.keys() - before:
            self._readable.setdefault(user, set()).add(actor_id)
        self._actors[actor_id] = permissions

    def _forget(self, user: str, actor_id: str) -> None:
        if user in self._readable:
            self._readable[user].discard(actor_id)
            if not self._readable[user]:
                del self._readable[user]

    # -- tokens ----------------------------------------------------------------------------------

    def _created(self, event: ev.TokenCreated, recorded: Recorded) -> bool:
        known = self._tokens.get(event.token_id)
        if known is not None:
            return False
        token = Token(
            token_id=event.token_id,
            sha256=event.sha256,
            name=event.name,
            owner=event.owner,
            roles=frozenset(Role(role) for role in event.roles if role in list(Role)),
            read_only=event.read_only,
            actors=None if event.actors is None else frozenset(event.actors),
            created_at=recorded.time,
            expires_at=parse_time(event.expires_at),
            created_by=event.created_by,
            head=recorded.sequence,
        )
        self._tokens[token.token_id] = token
        self._of_owner.setdefault(token.owner, set()).add(token.token_id)
        heappush(self._expiring, (token.expires_at, token.token_id))
        return False

    def drop_expired(self, now: datetime) -> Iterator[str]:
        """Forget the tokens that have expired; their ids."""
        while self._expiring and self._expiring[0][0] <= now:
            token_id = heappop(self._expiring)[1]
            self._revoked(token_id)
            yield token_id

    def _revoked(self, token_id: str) -> bool:
        token = self._tokens.pop(token_id, None)
        if token is None:
            return False
        self._of_owner[token.owner].discard(token_id)
        if not self._of_owner[token.owner]:
            del self._of_owner[token.owner]
        return True

    def _used(self, event: ev.TokenUsed, sequence: int) -> None:
        token = self._tokens.get(event.token_id)
        if token is None:
            return
        try:
            used = date.fromisoformat(event.date)
        except ValueError:
            return
        self._tokens[event.token_id] = replace(
            token, last_used=max(used, token.last_used or used), head=max(sequence, token.head)
        )

    # -- nonces ----------------------------------------------------------------------------------

    def _nonce_created(self, event: ev.NonceCreated, time: datetime) -> None:
        if event.actor_id not in self._actors or event.nonce_id in self._nonces:
            return
        self._nonces[event.nonce_id] = nonce_of(event, time)
        self._of_actor.setdefault(event.actor_id, set()).add(event.nonce_id)

    def _nonce_deleted(self, nonce_id: str) -> bool:
        nonce = self._nonces.pop(nonce_id, None)
        if nonce is None:
            return False
        self._of_actor[nonce.actor_id].discard(nonce_id)
        if not self._of_actor[nonce.actor_id]:
            del self._of_actor[nonce.actor_id]
        return True


def nonce_of(event: ev.NonceCreated, time: datetime) -> Nonce:
    """The nonce that an event of this time made."""
    return Nonce(
        nonce_id=event.nonce_id,
        actor_id=event.actor_id,
        sha256=event.sha256,
        level=event.level,
        max_uses=event.max_uses,
        description=event.description,
        owner=event.owner,
        created_at=time,
    )


def permissions_of_history(history: Iterable[Recorded]) -> Permissions:
    """The permissions in the history of one actor, deleted or not."""
    fold, actor_id = AccessFold(), ""
    for recorded in history:
        if isinstance(recorded.event, ev.ActorRegistered | ev.PermissionSet):
            actor_id = recorded.event.actor_id
            fold.apply(recorded)
    return fold.permissions(actor_id).levels
