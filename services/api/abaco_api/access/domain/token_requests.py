"""Requests for API tokens: what may be asked for, and the event it leads to. Pure."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import msgspec

from abaco_api.access.domain.access_errors import Forbidden
from abaco_api.access.domain.access_fold import Token
from abaco_api.access.domain.api_token import ApiToken, digest
from abaco_api.access.domain.principal import Principal, PrincipalKind, Role, is_user_name
from abaco_api.api_errors import BadParameter
from abaco_proto import events as ev
from abaco_proto import names
from abaco_proto.envelope import format_time
from abaco_proto.errors import Refused

MAX_TOKENS = 100
"""The tokens that one user may have at once."""

MAX_NAME = 100
MAX_ACTORS = 100
MAX_DAYS = 366
DEFAULT_DAYS = 90


class TokenRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asks for. Without ``owner`` and ``roles``, its own; ``actors`` None is all."""

    name: str
    owner: str = ""
    roles: Sequence[Role] | None = None
    read_only: bool = False
    actors: Sequence[str] | None = None
    days: float = DEFAULT_DAYS


def decide_create(
    principal: Principal,
    request: TokenRequest,
    token: ApiToken,
    owned: Iterable[Token],
    now: datetime,
) -> ev.TokenCreated:
    """The event of a new token: never with more rights than its creator has.

    Raises:
        BadParameter: a parameter has the wrong form.
        Forbidden: it would have more rights than its creator.
        Refused: its owner has as many tokens as one may have.
    """
    is_admin = Role.ADMIN in principal.roles
    owner = request.owner or principal.user
    roles = frozenset(request.roles if request.roles is not None else principal.roles)
    _check_form(request, owner)
    if principal.is_limited or (principal.kind is PrincipalKind.TOKEN and not is_admin):
        raise Forbidden("an API token makes no others, unless it has the role admin and no limits")
    if not is_admin and owner != principal.user:
        raise Forbidden("owner: only an admin makes tokens for others")
    if not is_admin and not roles <= principal.roles:
        raise Forbidden("roles: a token has at most the roles of its creator")
    if sum(held.expires_at > now for held in owned) >= MAX_TOKENS:
        raise Refused(f"{owner} has {MAX_TOKENS} tokens, the most: revoke one first")
    expires_at = now + timedelta(days=request.days)
    if principal.kind is PrincipalKind.TOKEN and principal.expires_at is not None:
        expires_at = min(expires_at, principal.expires_at)
    return ev.TokenCreated(
        token_id=token.token_id,
        sha256=digest(token.text),
        name=request.name,
        owner=owner,
        roles=tuple(role.value for role in Role if role in roles),
        read_only=request.read_only,
        actors=None if request.actors is None else tuple(request.actors),
        expires_at=format_time(expires_at),
        created_by=principal.name,
    )


def may_see(principal: Principal, token: Token) -> bool:
    """Whether a principal may see and revoke a token: its own, an admin every one."""
    if principal.actors is not None:
        return token.token_id == principal.id
    return Role.ADMIN in principal.roles or token.owner == principal.user


def _check_form(request: TokenRequest, owner: str) -> None:
    if not owner:
        raise BadParameter("owner", "is missing: nobody is logged in who could own the token")
    if not is_user_name(owner):
        raise BadParameter("owner", "expected the name of a user: 1 to 255 printable characters")
    if not 0 < len(request.name) <= MAX_NAME or not request.name.isprintable():
        raise BadParameter("name", f"expected 1 to {MAX_NAME} printable characters")
    if not 0 < request.days <= MAX_DAYS:
        raise BadParameter("days", f"expected more than 0 and at most {MAX_DAYS}")
    if request.actors is not None and not 0 < len(request.actors) <= MAX_ACTORS:
        raise BadParameter("actors", f"expected 1 to {MAX_ACTORS} ids of actors")
    for actor_id in request.actors or ():
        if not names.is_actor_id(actor_id):
            raise BadParameter("actors", f"{actor_id[:100]!r} can be the id of no actor")
