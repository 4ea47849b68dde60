"""Requests for nonces: what may be asked for, and the events they lead to. Pure."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from abaco_api.access.domain.access_errors import Unauthenticated
from abaco_api.access.domain.access_fold import Nonce
from abaco_api.access.domain.api_token import ApiToken, digest
from abaco_api.access.domain.principal import Principal
from abaco_api.api_errors import BadParameter
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Refused, Unknown
from abaco_proto.events import PermissionLevel

MAX_NONCES = 100
"""The nonces that one actor may have at once, those that are used up included."""

MAX_DESCRIPTION = 1000
UNLIMITED = -1
MAX_USES = 10**9


class NonceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asks for. ``max_uses`` -1 is any number."""

    level: PermissionLevel = PermissionLevel.EXECUTE
    max_uses: int = UNLIMITED
    description: str = ""


class NonceUses(msgspec.Struct, frozen=True):
    """How often a nonce was used, and when last: None for never. ``head`` is its last event."""

    head: int
    uses: int = 0
    used_at: datetime | None = None
    is_deleted: bool = False


def uses_after(last: Recorded) -> NonceUses:
    """The uses of a nonce by its last event, which has their number."""
    match last.event:
        case ev.NonceRedeemed(use=use):
            return NonceUses(last.sequence, use, last.time)
        case ev.NonceDeleted(uses=uses):
            return NonceUses(last.sequence, uses, is_deleted=True)
    return NonceUses(last.sequence)


def decide_create(
    principal: Principal,
    actor_id: str,
    request: NonceRequest,
    text: ApiToken,
    present: Sequence[Nonce],
) -> ev.NonceCreated:
    """The event of a new nonce.

    Raises:
        BadParameter: a parameter has the wrong form.
        Refused: the actor has as many nonces as one may have.
    """
    if request.max_uses != UNLIMITED and not 0 < request.max_uses <= MAX_USES:
        raise BadParameter("max_uses", f"expected -1, which is any number, or 1 to {MAX_USES}")
    if len(request.description) > MAX_DESCRIPTION or "\x00" in request.description:
        raise BadParameter("description", f"expected at most {MAX_DESCRIPTION} characters")
    if len(present) >= MAX_NONCES:
        raise Refused(f"{actor_id} has {MAX_NONCES} nonces, the most: delete one first")
    return ev.NonceCreated(
        nonce_id=text.token_id,
        actor_id=actor_id,
        sha256=digest(text.text),
        level=request.level,
        max_uses=request.max_uses,
        description=request.description,
        owner=principal.user,
    )


def decide_redeem(nonce: Nonce, state: NonceUses) -> ev.NonceRedeemed:
    """The event of one more use.

    Raises:
        Unauthenticated: it is used up, or deleted.
    """
    if state.is_deleted:
        raise Unauthenticated("the nonce is not known here")
    if is_used_up(nonce, state.uses):
        raise Unauthenticated("the nonce has no uses left")
    return ev.NonceRedeemed(nonce_id=nonce.nonce_id, use=state.uses + 1)


def decide_delete(nonce_id: str, state: NonceUses) -> ev.NonceDeleted:
    """The event of a deletion.

    Raises:
        Unknown: it is deleted already.
    """
    if state.is_deleted:
        raise Unknown(f"nonce_id: there is no nonce {nonce_id!r}")
    return ev.NonceDeleted(nonce_id=nonce_id, uses=state.uses)


def is_used_up(nonce: Nonce, uses: int) -> bool:
    """Whether a nonce has no uses left."""
    return nonce.max_uses != UNLIMITED and uses >= nonce.max_uses
