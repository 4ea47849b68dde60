"""Commands on permissions and API tokens."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import UTC, date, datetime
from secrets import token_bytes

import msgspec

from abaco_api.access.access_directory import AccessDirectory
from abaco_api.access.domain import api_token
from abaco_api.access.domain.access_fold import Token
from abaco_api.access.domain.api_token import ApiToken
from abaco_api.access.domain.permission_requests import decide_set
from abaco_api.access.domain.principal import Principal, PrincipalKind
from abaco_api.access.domain.token_requests import TokenRequest, decide_create, may_see
from abaco_api.commands.actor_directory import ActorDirectory
from abaco_api.commands.command_handler import Cause, CommandHandler
from abaco_proto import events as ev
from abaco_proto.envelope import Expected, Recorded
from abaco_proto.errors import AbacoError, Unavailable, Unknown
from abaco_proto.events import PermissionLevel
from abaco_proto.names import token_filter, type_filter

logger = logging.getLogger(__name__)


class CreatedToken(msgspec.Struct, frozen=True):
    """A new token, with its text, which is nowhere else."""

    text: str
    token: Token
    sequence: int


class AccessCommands:
    """Sets permissions; creates, revokes and notes the use of API tokens."""

    def __init__(
        self,
        handler: CommandHandler,
        actors: ActorDirectory,
        access: AccessDirectory,
        tenant: str,
    ) -> None:
        self._handler = handler
        self._actors = actors
        self._access = access
        self._tenant = tenant
        self._notes: dict[str, asyncio.Task[None]] = {}

    async def set_permission(
        self, actor_id: str, user: str, level: PermissionLevel, cause: Cause
    ) -> int:
        """Set a user's level on an actor; the sequence of the event, or of the last one.

        Raises:
            Unknown: there is no such actor.
            Refused: as ``decide_set``.
        """
        history = PermissionHistory(self._actors, self._access, self._tenant, actor_id)

        def decide(_: int) -> Sequence[ev.Event]:
            levels = self._access.fold.permissions(actor_id).levels
            return decide_set(actor_id, user, level, levels)

        return (await self._handler.execute(history, decide, cause)).state

    async def create_token(
        self, principal: Principal, request: TokenRequest, cause: Cause
    ) -> CreatedToken:
        """Create a token.

        Raises:
            BadParameter, Forbidden, Refused: as ``decide_create``.
        """
        await self._access.ready()
        token = api_token.generate(token_bytes(api_token.RANDOM_BYTES))
        own = token_filter(self._tenant, token.token_id)
        history = CreationHistory(self._access, self._tenant, own, ev.TokenCreated)
        owner = request.owner or principal.user

        def decide(_: int) -> Sequence[ev.Event]:
            owned = self._access.fold.tokens(owner)
            return [decide_create(principal, request, token, owned, datetime.now(UTC))]

        executed = await self._handler.execute(history, decide, cause)
        return self._created(token, executed.state)

    async def revoke_token(self, principal: Principal, token_id: str, cause: Cause) -> int:
        """Revoke a token.

        Raises:
            Unknown: there is no such token, or the principal may not see it.
        """
        await self.token(principal, token_id)
        history = TokenHistory(self._access, self._tenant, token_id)

        def decide(_: int) -> Sequence[ev.Event]:
            if self._access.fold.token(token_id) is None:
                return []
            return [ev.TokenRevoked(token_id=token_id)]

        return (await self._handler.execute(history, decide, cause)).state

    async def token(self, principal: Principal, token_id: str) -> Token:
        """A token that a principal may see.

        Raises:
            Unknown: there is no such token, or it may not be seen.
        """
        await self._access.ready()
        token = self._access.fold.token(token_id)
        if token is None or not may_see(principal, token):
            raise Unknown(f"token_id: there is no token {token_id[:100]!r}")
        return token

    async def tokens(self, principal: Principal) -> list[Token]:
        """The tokens that a principal may see, the oldest first."""
        await self._access.ready()
        return [token for token in self._access.fold.tokens() if may_see(principal, token)]

    def note_use(self, principal: Principal) -> None:
        """Note that a token is used, at most once a day, without keeping the request waiting.

        Nothing, if the principal did not come with one.
        """
        if principal.kind is not PrincipalKind.TOKEN or principal.id in self._notes:
            return
        token, today = self._access.fold.token(principal.id), datetime.now(UTC).date()
        if token is None or (token.last_used is not None and token.last_used >= today):
            return
        task = asyncio.create_task(self._note_use(principal.id, today))
        self._notes[principal.id] = task
        task.add_done_callback(lambda _: self._notes.pop(principal.id, None))

    async def _note_use(self, token_id: str, today: date) -> None:
        history = TokenHistory(self._access, self._tenant, token_id)

        def decide(_: int) -> Sequence[ev.Event]:
            token = self._access.fold.token(token_id)
            if token is None or (token.last_used is not None and token.last_used >= today):
                return []
            return [ev.TokenUsed(token_id=token_id, date=today.isoformat())]

        try:
            await self._handler.execute(history, decide, Cause())
        except AbacoError as error:
            logger.debug("the use of token %s is noted with its next request: %s", token_id, error)

    def _created(self, token: ApiToken, sequence: int) -> CreatedToken:
        found = self._access.fold.token(token.token_id)
        if found is None:
            raise Unavailable("the token was revoked at once")
        return CreatedToken(token.text, found, sequence)


class FoldedHistory(ABC):
    """A history that the access directory folds. The state is the sequence of its last event."""

    def __init__(self, access: AccessDirectory, queue_key: str, key_filter: str) -> None:
        self._access = access
        self.queue_key = queue_key
        self.key_filter = key_filter

    @abstractmethod
    async def load(self) -> int:
        """See ``History``."""

    async def reload(self, _: int) -> int:
        """See ``History``."""
        await self._access.refresh(self.key_filter)
        return await self.load()

    async def head(self, state: int) -> int:
        """See ``History``."""
        return state

    def expected(self, state: int, _: ev.Event) -> Expected:
        """See ``History``."""
        return Expected(filter=self.key_filter, sequence=state)

    def evolve(self, _: int, recorded: Recorded) -> int:
        """See ``History``."""
        self._access.apply(recorded)
        return recorded.sequence


class PermissionHistory(FoldedHistory):
    """The permissions that were set on one actor."""

    def __init__(
        self, actors: ActorDirectory, access: AccessDirectory, tenant: str, actor_id: str
    ) -> None:
        key_filter = type_filter(tenant, actor_id, ev.PermissionSet)
        super().__init__(access, f"permissions of {actor_id}", key_filter)
        self._actors = actors
        self._actor_id = actor_id

    async def load(self) -> int:
        """See ``History``."""
        await self._actors.find(self._actor_id)
        await self._access.permissions(self._actor_id)
        return self._access.fold.permissions(self._actor_id).head


class CreationHistory(FoldedHistory):
    """The creations of all tokens, or of all nonces.

    The id of a new one is random, so a condition on its own history would always hold. This one
    makes one token of a request that is sent twice at the same time, and lets nobody have more
    tokens than one may have.
    """

    def __init__(
        self, access: AccessDirectory, tenant: str, own_filter: str, kind: type[ev.Event]
    ) -> None:
        """``own_filter`` is that of the one that is about to be created, by an event ``kind``."""
        super().__init__(access, f"new {ev.type_of(kind)}", type_filter(tenant, "*", kind))
        self._own_filter = own_filter

    async def load(self) -> int:
        """See ``History``. Raises ``Unavailable`` if the id is taken."""
        if await self._access.refresh(self._own_filter):
            raise Unavailable("the id of the new credential is taken: try again")
        return await self._access.refresh(self.key_filter)

    async def reload(self, _: int) -> int:
        """See ``History``."""
        return await self.load()


class TokenHistory(FoldedHistory):
    """The events of one token that exists."""

    def __init__(self, access: AccessDirectory, tenant: str, token_id: str) -> None:
        super().__init__(access, f"token {token_id}", token_filter(tenant, token_id))
        self._token_id = token_id

    async def load(self) -> int:
        """See ``History``."""
        token = self._access.fold.token(self._token_id)
        return 0 if token is None else token.head
