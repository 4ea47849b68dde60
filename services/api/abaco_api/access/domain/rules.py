"""The rules: what each operation needs. One table, for the api, its description and the docs.

An operation on an actor needs a level on that actor, or one of its ``roles``. Any other operation
needs one of its ``roles``; without roles, any principal. Each role also has a level on every actor
of its tenant (``ROLE_LEVELS``).
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Literal

import msgspec

from abaco_api.access.domain.principal import Role
from abaco_proto.errors import Malformed
from abaco_proto.events import PermissionLevel

NONE, READ = PermissionLevel.NONE, PermissionLevel.READ
EXECUTE, UPDATE = PermissionLevel.EXECUTE, PermissionLevel.UPDATE

ROLE_LEVELS: Mapping[Role, PermissionLevel] = {
    Role.ADMIN: UPDATE,
    Role.DEVELOPER: NONE,
    Role.OPERATOR: EXECUTE,
    Role.READER: READ,
    Role.AUDITOR: READ,
}
"""The level that a role has on every actor of its tenant."""

ROLE_MEANINGS: Mapping[Role, str] = {
    Role.ADMIN: "may do everything in the tenant, and makes tokens for others",
    Role.DEVELOPER: "may register actors",
    Role.OPERATOR: "keeps the system running: halts, retries, purges, scales and stops workers",
    Role.READER: "may read all actors",
    Role.AUDITOR: "may read all actors, and all events with those about tokens",
}


Published = Literal["public", "authenticated", "off"]
"""Who may read something about the process: everybody, who has a credential, or nobody."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """What one operation needs.

    ``public``: nothing, not even a credential. ``filtered``: the answer shows only what the
    principal may read, so that a token for some actors may ask. ``installation``: it is about all
    tenants, and only for principals of the tenant ``ABACO_TENANT``. ``shares``: it gives others
    access, or shows how they have it, which no nonce may.
    """

    level: PermissionLevel | None = None
    roles: frozenset[Role] = frozenset()
    public: bool = False
    filtered: bool = False
    installation: bool = False
    shares: bool = False


def _roles(*roles: Role) -> frozenset[Role]:
    return frozenset(roles)


_ACTOR = "/actors/{actor_id}"
_EXECUTION = _ACTOR + "/executions/{execution_id}"
_PUBLIC = Rule(public=True)
_READ = Rule(level=READ)
_EXECUTE = Rule(level=EXECUTE)
_UPDATE = Rule(level=UPDATE)
_SHARE = Rule(level=UPDATE, shares=True)
_READ_SHARED = Rule(level=READ, shares=True)
_OPERATE = Rule(level=UPDATE, roles=_roles(Role.OPERATOR))
_ANYONE = Rule()
_AUDIT = Rule(roles=_roles(Role.ADMIN, Role.AUDITOR))

RULES: Mapping[tuple[str, str], Rule] = {
    ("GET", "/healthz"): _PUBLIC,
    ("GET", "/readyz"): _PUBLIC,
    ("GET", "/openapi.json"): _PUBLIC,
    ("GET", "/asyncapi.json"): _PUBLIC,
    ("GET", "/metrics"): Rule(
        roles=_roles(Role.ADMIN, Role.OPERATOR, Role.READER, Role.AUDITOR), installation=True
    ),
    ("POST", "/actors"): Rule(roles=_roles(Role.ADMIN, Role.DEVELOPER)),
    ("GET", "/actors"): Rule(filtered=True),
    ("GET", _ACTOR): _READ,
    ("PUT", _ACTOR): _UPDATE,
    ("DELETE", _ACTOR): _UPDATE,
    ("GET", f"{_ACTOR}/state"): _READ,
    ("POST", f"{_ACTOR}/state"): _UPDATE,
    ("POST", f"{_ACTOR}/messages"): _EXECUTE,
    ("GET", f"{_ACTOR}/messages"): _READ,
    ("DELETE", f"{_ACTOR}/messages"): _OPERATE,
    ("GET", f"{_ACTOR}/executions"): _READ,
    ("GET", _EXECUTION): _READ,
    ("DELETE", _EXECUTION): _OPERATE,
    ("GET", f"{_EXECUTION}/logs"): _READ,
    ("POST", f"{_EXECUTION}/retry"): _EXECUTE,
    ("POST", f"{_EXECUTION}/rerun"): _EXECUTE,
    ("GET", f"{_EXECUTION}/diff"): _READ,
    ("GET", f"{_EXECUTION}/why"): _READ,
    ("GET", f"{_ACTOR}/workers"): _READ,
    ("POST", f"{_ACTOR}/workers"): _OPERATE,
    ("GET", f"{_ACTOR}/workers/{{worker_id}}"): _READ,
    ("DELETE", f"{_ACTOR}/workers/{{worker_id}}"): _OPERATE,
    ("GET", f"{_ACTOR}/subscriptions"): _READ,
    ("POST", f"{_ACTOR}/subscriptions"): _UPDATE,
    ("DELETE", f"{_ACTOR}/subscriptions/{{subscription_id}}"): _UPDATE,
    ("GET", f"{_ACTOR}/permissions"): _READ_SHARED,
    ("POST", f"{_ACTOR}/permissions"): _SHARE,
    ("GET", f"{_ACTOR}/nonces"): _READ_SHARED,
    ("POST", f"{_ACTOR}/nonces"): _SHARE,
    ("GET", f"{_ACTOR}/nonces/{{nonce_id}}"): _READ_SHARED,
    ("DELETE", f"{_ACTOR}/nonces/{{nonce_id}}"): _SHARE,
    ("GET", f"{_ACTOR}/events"): _READ,
    ("GET", "/events"): Rule(filtered=True),
    ("GET", "/events/{sequence}"): Rule(filtered=True),
    ("GET", "/audit/head"): _AUDIT,
    ("POST", "/tokens"): _ANYONE,
    ("GET", "/tokens"): _ANYONE,
    ("GET", "/tokens/{token_id}"): _ANYONE,
    ("DELETE", "/tokens/{token_id}"): _ANYONE,
}
"""The rule of each operation, by method and path. A principal sees only its own tokens, an admin
all of the tenant."""

_ADMIN = _roles(Role.ADMIN)
_ADMIN_OR_OPERATOR = _roles(Role.ADMIN, Role.OPERATOR)

PRIVILEGED_PARAMETERS: Mapping[str, frozenset[Role]] = {
    "privileged": _ADMIN,
    "no_new_privileges": _ADMIN,
    "max_workers": _ADMIN_OR_OPERATOR,
    "max_cpus": _ADMIN_OR_OPERATOR,
    "mem_limit": _ADMIN_OR_OPERATOR,
    "max_processes": _ADMIN_OR_OPERATOR,
    "max_run_seconds": _ADMIN_OR_OPERATOR,
    "max_log_bytes": _ADMIN_OR_OPERATOR,
    "max_disk_bytes": _ADMIN_OR_OPERATOR,
}
"""Parameters of a definition that need one of these roles, besides the level on the actor. Null,
which is the host's setting, needs none; nor does ``max_workers`` up to ``ABACO_MAX_WORKERS``."""

GIVE_PRIVILEGES = frozenset({"privileged", "no_new_privileges"})
"""Those of them that give the image additional rights on its host."""


NOBODY = Rule(level=UPDATE)
"""The rule of an operation that has none, on no actor: nobody may execute it."""


def rule_of(method: str, path: str) -> Rule:
    """The rule of an operation. The process does not start if one has none (``check_rules``)."""
    return RULES.get((method, path), NOBODY)


def published_rule(path: str, published: Published) -> Rule | None:
    """The rule of a document that a setting publishes; None if it is not served."""
    rule = RULES["GET", path]
    match published:
        case "public":
            return _PUBLIC
        case "authenticated":
            return _ANYONE if rule.public else rule
    return None


def check_rules(operations: Iterable[tuple[str, str]]) -> None:
    """Check that each operation has a rule, and each rule an operation.

    Raises:
        Malformed: one of them has not; the process must not serve.
    """
    known = set(operations)
    for method, path in sorted(known - set(RULES)):
        raise Malformed(f"{method} {path} has no access rule: add one to access/rules.py")
    if unused := sorted(set(RULES) - known):
        method, path = unused[0]
        raise Malformed(f"access/rules.py has a rule for {method} {path}, which does not exist")


def needs(rule: Rule) -> str:
    """What an operation needs, in words."""
    roles = " or ".join(role for role in Role if role in rule.roles)
    if rule.public:
        return "nothing"
    if rule.level is not None:
        needed = f"{rule.level} on the actor" + (f", or role {roles}" if roles else "")
        return needed + ("; not with a nonce" if rule.shares else "")
    if roles:
        return f"role {roles}" + (" in the tenant ABACO_TENANT" if rule.installation else "")
    return "a credential" + ("; shows what it may read" if rule.filtered else "")


def security_of(rule: Rule) -> list[dict[str, Collection[str]]]:
    """The OpenAPI ``security`` of an operation: none, or a bearer token with one of some roles.

    Where a nonce is enough, it is the alternative.
    """
    if rule.public:
        return []
    bearer: dict[str, Collection[str]] = {
        SCHEME: [role.value for role in Role if role in rule.roles]
    }
    accepts_nonce = (rule.level is not None and not rule.shares) or rule.filtered
    return [bearer, {NONCE_SCHEME: []}] if accepts_nonce else [bearer]


SCHEME: Literal["bearer"] = "bearer"
NONCE_SCHEME: Literal["nonce"] = "nonce"
"""The names of the security schemes in the OpenAPI description."""
