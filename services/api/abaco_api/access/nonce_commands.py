"""Commands on nonces: create, redeem, delete, list.

A use is an event, appended on the condition that the history of the nonce has not grown since it
was read. So of two processes that redeem the last use at the same time, one appends it, and the
other is refused. It is appended before the request is executed: a process that ends between the two
loses a use, and never gives one more.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from secrets import token_bytes

import msgspec

from abaco_api.access.access_commands import CreationHistory
from abaco_api.access.access_directory import AccessDirectory
from abaco_api.access.domain import api_token, nonce_requests
from abaco_api.access.domain.access_errors import Unauthenticated
from abaco_api.access.domain.access_fold import Nonce
from abaco_api.access.domain.nonce_requests import NonceRequest, NonceUses
from abaco_api.access.domain.principal import Principal
from abaco_api.access.nonce_history import NonceHistory, NonceUsesCache
from abaco_api.commands.actor_directory import ActorDirectory
from abaco_api.commands.command_handler import Cause, CommandHandler
from abaco_api.commands.idempotency import AlreadyExecuted
from abaco_jetstream.ports import EventLog
from abaco_proto import events as ev
from abaco_proto.errors import Unavailable, Unknown
from abaco_proto.names import nonce_filter


class CreatedNonce(msgspec.Struct, frozen=True):
    """A new nonce, with its text, which is nowhere else."""

    text: str
    nonce: Nonce
    sequence: int


class NewNonceHistory(CreationHistory):
    """The creations of all nonces, for one of an actor that exists."""

    def __init__(
        self,
        actors: ActorDirectory,
        access: AccessDirectory,
        tenant: str,
        actor_id: str,
        own_filter: str,
    ) -> None:
        """``own_filter`` is that of the nonce that is about to be created."""
        super().__init__(access, tenant, own_filter, ev.NonceCreated)
        self._actors = actors
        self._actor_id = actor_id

    async def load(self) -> int:
        """See ``History``. Raises ``Unknown`` if there is no such actor, too."""
        await self._actors.find(self._actor_id)
        await self._access.permissions(self._actor_id)
        return await super().load()


class NonceCommands:
    """Creates, redeems and deletes the nonces of a tenant."""

    def __init__(
        self,
        handler: CommandHandler,
        log: EventLog,
        actors: ActorDirectory,
        access: AccessDirectory,
        tenant: str,
    ) -> None:
        self._handler = handler
        self._log = log
        self._actors = actors
        self._access = access
        self._tenant = tenant
        self._uses = NonceUsesCache(log, tenant)

    async def create(
        self, principal: Principal, actor_id: str, request: NonceRequest, cause: Cause
    ) -> CreatedNonce:
        """Create a nonce for an actor.

        Raises:
            Unknown: there is no such actor.
            BadParameter, Refused: as ``decide_create``.
        """
        text = api_token.generate(token_bytes(api_token.RANDOM_BYTES), api_token.NONCE_PREFIX)
        own = nonce_filter(self._tenant, text.token_id)
        history = NewNonceHistory(self._actors, self._access, self._tenant, actor_id, own)

        def decide(_: int) -> Sequence[ev.Event]:
            present = self._access.fold.nonces(actor_id)
            return [nonce_requests.decide_create(principal, actor_id, request, text, present)]

        executed = await self._handler.execute(history, decide, cause)
        nonce = self._access.fold.nonce(text.token_id)
        if nonce is None:
            raise Unavailable("the actor or the nonce was deleted at once")
        return CreatedNonce(text.text, nonce, executed.state)

    async def redeem(self, principal: Principal, cause: Cause) -> None:
        """Use a nonce for one request. A request that is repeated with its key uses it once.

        Raises:
            Unauthenticated: it has no uses left, or was deleted.
            KeyReused, Unavailable: as ``CommandHandler.execute``.
        """
        nonce = self._access.fold.nonce(principal.id)
        if nonce is None:
            raise Unauthenticated("the nonce is not known here")
        history = NonceHistory(self._uses, self._access, nonce.nonce_id)
        with suppress(AlreadyExecuted):
            await self._handler.execute(
                history, lambda state: [nonce_requests.decide_redeem(nonce, state)], cause
            )

    async def delete(self, actor_id: str, nonce_id: str, cause: Cause) -> int:
        """Delete a nonce; the sequence of the event.

        Raises:
            Unknown: there is no such actor or nonce.
        """
        await self._nonce(actor_id, nonce_id)
        history = NonceHistory(self._uses, self._access, nonce_id)
        executed = await self._handler.execute(
            history, lambda state: [nonce_requests.decide_delete(nonce_id, state)], cause
        )
        return executed.state.head

    async def show(self, actor_id: str, nonce_id: str) -> tuple[Nonce, NonceUses]:
        """A nonce, and how often it was used.

        Raises:
            Unknown: there is no such actor or nonce.
            Unavailable: the log does not answer.
        """
        nonce = await self._nonce(actor_id, nonce_id)
        return nonce, await self._uses.reload(nonce_id)

    async def list(self, actor_id: str) -> Sequence[tuple[Nonce, NonceUses]]:
        """The same of all nonces of an actor, the oldest first. Raises as ``show``."""
        await self._of_actor(actor_id)
        nonces = self._access.fold.nonces(actor_id)
        uses = await asyncio.gather(*(self._uses.reload(nonce.nonce_id) for nonce in nonces))
        return [*zip(nonces, uses, strict=True)]

    async def _of_actor(self, actor_id: str) -> None:
        await self._actors.find(actor_id)
        await self._access.permissions(actor_id)

    async def _nonce(self, actor_id: str, nonce_id: str) -> Nonce:
        await self._of_actor(actor_id)
        nonce = self._access.fold.nonce(nonce_id)
        if nonce is None or nonce.actor_id != actor_id:
            raise Unknown(f"nonce_id: there is no nonce {nonce_id[:100]!r}")
        return nonce
