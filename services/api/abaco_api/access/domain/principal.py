"""The principal of a request: who sends it, with which rights. Pure."""

from datetime import datetime
from enum import StrEnum

import msgspec

from abaco_proto.envelope import principal_text
from abaco_proto.events import PermissionLevel

WORLD = "ABACO_WORLD"
"""In a permission: every user of the tenant. No principal may have this name."""

MAX_USER = 255

LEVELS = tuple(PermissionLevel)
"""From the least to the most."""


class Role(StrEnum):
    """A role in a tenant. What each may do is in :mod:`abaco_api.access.domain.rules`."""

    ADMIN = "admin"
    DEVELOPER = "developer"
    OPERATOR = "operator"
    READER = "reader"
    AUDITOR = "auditor"


class PrincipalKind(StrEnum):
    """What identified a principal."""

    USER = "user"
    SERVICE = "service"
    TOKEN = "token"  # noqa: S105 - a kind, no secret
    NONCE = "nonce"


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who sends a request.

    ``user`` is whose permissions apply: of an API token its owner; empty if there is nobody, as
    with a nonce. ``id`` is the id of the token or nonce, or the same as ``user``. ``actors`` limits
    it to some actors; None does not. ``level`` is what a nonce has on its one actor, whatever the
    permissions say. ``expires_at`` is when the credential ends; None if it does not.
    """

    kind: PrincipalKind
    id: str
    user: str
    tenant: str
    roles: frozenset[Role] = frozenset()
    read_only: bool = False
    actors: frozenset[str] | None = None
    level: PermissionLevel | None = None
    expires_at: datetime | None = None

    @property
    def name(self) -> str:
        """The principal in log lines and answers: ``user alice``, ``token AbCd1234``."""
        return f"{self.kind} {self.id}"

    @property
    def text(self) -> str | None:
        """The principal in the envelope of events; None if access control is off."""
        if self.kind is PrincipalKind.SERVICE and not self.user:
            return None
        owner = (self.user,) if self.kind is PrincipalKind.TOKEN else ()
        return principal_text(self.kind, self.id, *owner)

    @property
    def is_limited(self) -> bool:
        """Whether it may do less than its user and roles could."""
        return self.read_only or self.actors is not None


def local_principal(tenant: str) -> Principal:
    """Who sends a request if authentication is off: it may do everything, and owns nothing."""
    return Principal(
        kind=PrincipalKind.SERVICE,
        id="local",
        user="",
        tenant=tenant,
        roles=frozenset({Role.ADMIN}),
    )


def is_user_name(text: str) -> bool:
    """Whether a text may name a user: 1 to 255 printable characters, and not ``ABACO_WORLD``."""
    return 0 < len(text) <= MAX_USER and text.isprintable() and text.strip() == text != WORLD


def at_least(level: PermissionLevel, needed: PermissionLevel) -> bool:
    """Whether a level includes another."""
    return LEVELS.index(level) >= LEVELS.index(needed)


def highest(*levels: PermissionLevel) -> PermissionLevel:
    """The highest of some levels."""
    return max(levels, key=LEVELS.index, default=PermissionLevel.NONE)
