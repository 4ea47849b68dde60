"""The decision whether a principal may do something. Pure."""

from collections.abc import Mapping
from enum import Enum, auto

from abaco_api.access.domain.principal import (
    WORLD,
    Principal,
    PrincipalKind,
    Role,
    at_least,
    highest,
)
from abaco_api.access.domain.rules import GIVE_PRIVILEGES, PRIVILEGED_PARAMETERS, ROLE_LEVELS, Rule
from abaco_proto.events import Definition, PermissionLevel
from abaco_proto.names import CREDENTIAL_ACTOR_PREFIXES

NONE, READ = PermissionLevel.NONE, PermissionLevel.READ

Permissions = Mapping[str, PermissionLevel]
"""The levels that are set on one actor, by user."""


HARMLESS = Definition(name="", image="", max_workers=0)
"""The values of privileged parameters that everybody may set; null is the host's setting."""


class Decision(Enum):
    """The answer to a request for access."""

    ALLOW = auto()
    UNAUTHENTICATED = auto()
    NOT_FOUND = auto()
    FORBIDDEN = auto()


def level_on(principal: Principal, actor_id: str, permissions: Permissions) -> PermissionLevel:
    """The level of a principal on an actor, by its user, its roles, and the level of everybody."""
    if principal.actors is not None and actor_id not in principal.actors:
        return NONE
    if principal.level is not None:
        return principal.level
    level = highest(
        permissions.get(principal.user, NONE),
        permissions.get(WORLD, NONE),
        *(ROLE_LEVELS[role] for role in principal.roles),
    )
    return READ if principal.read_only and at_least(level, READ) else level


def decide(
    principal: Principal | None,
    rule: Rule,
    *,
    writes: bool,
    level: PermissionLevel = NONE,
) -> Decision:
    """Whether a principal may execute an operation with a rule.

    ``level`` is the principal's on the actor that the operation is about. What may not be read is
    not found; what may be read but not changed is forbidden.
    """
    if rule.public:
        return Decision.ALLOW
    if principal is None:
        return Decision.UNAUTHENTICATED
    if principal.kind is PrincipalKind.NONCE and rule.shares:
        return Decision.FORBIDDEN if at_least(level, READ) else Decision.NOT_FOUND
    has_role = not principal.roles.isdisjoint(rule.roles)
    if rule.level is not None:
        if not at_least(level, READ):
            return Decision.NOT_FOUND
        allowed = at_least(level, rule.level) or has_role
    else:
        reaches = principal.actors is None or rule.filtered
        allowed = reaches and (has_role or not rule.roles)
    return Decision.FORBIDDEN if not allowed or (writes and principal.read_only) else Decision.ALLOW


def reads_all_actors(principal: Principal) -> bool:
    """Whether a principal may read every actor of its tenant."""
    return principal.actors is None and any(
        at_least(ROLE_LEVELS[role], READ) for role in principal.roles
    )


def may_read_source(principal: Principal, source: str, permissions: Permissions) -> bool:
    """Whether a principal may read the events of an actor, a host or a credential.

    ``source`` is the actor token of their subject.
    """
    if source.startswith(CREDENTIAL_ACTOR_PREFIXES):
        return principal.actors is None and not principal.roles.isdisjoint(
            {Role.ADMIN, Role.AUDITOR}
        )
    if source.startswith("_"):
        return reads_all_actors(principal)
    return at_least(level_on(principal, source, permissions), READ)


def forbidden_parameter(
    principal: Principal, before: Definition | None, after: Definition, *, max_workers: int
) -> str | None:
    """The first change of a definition that needs a role which the principal has not; or None.

    ``before`` is None for a new actor; ``max_workers`` is how many everybody may have. The image of
    an actor with additional privileges may be changed only by who may give them.
    """
    for name, roles in PRIVILEGED_PARAMETERS.items():
        if not principal.roles.isdisjoint(roles):
            continue
        harmless = getattr(HARMLESS, name)
        old = harmless if before is None else getattr(before, name)
        new = getattr(after, name)
        if name == "max_workers":
            if new > max(old, max_workers):
                return name
        elif new not in (harmless, old):
            return name
        elif (
            name in GIVE_PRIVILEGES
            and new != harmless
            and before is not None
            and after.image != before.image
        ):
            return "image"
    return None
