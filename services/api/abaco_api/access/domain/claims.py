"""Claims of a verified JWT to a principal. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from abaco_api.access.domain.access_errors import Unauthenticated
from abaco_api.access.domain.issuers import PROFILES, Issuer
from abaco_api.access.domain.principal import Principal, PrincipalKind, Role, is_user_name
from abaco_proto.names import is_tenant

SERVICE_PREFIX = "service-account-"
"""How Keycloak names the user of a client that has a token for itself."""

MAX_TIME = 253402300799
"""The end of the year 9999."""


def principal_of(claims: Mapping[str, Any], issuer: Issuer) -> Principal:
    """The principal of a verified token.

    Raises:
        Unauthenticated: the claims name no user or no tenant.
    """
    profile = PROFILES[issuer.profile]
    user = claim(claims, issuer.user_claim or profile.user_claim)
    if user is None and claims.get("client_id") is not None:
        user = f"{SERVICE_PREFIX}{claims['client_id']}"  # RFC 9068: a client's own token
    if not isinstance(user, str):
        raise Unauthenticated("the token names no user")
    domain = ""
    if profile.domain:
        user, _, domain = user.rpartition("@")
    user = issuer.user_prefix + user
    if not is_user_name(user):
        raise Unauthenticated("the token names no user that can be one")
    is_service = user.removeprefix(issuer.user_prefix).startswith(SERVICE_PREFIX)
    return Principal(
        kind=PrincipalKind.SERVICE if is_service else PrincipalKind.USER,
        id=user,
        user=user,
        tenant=_tenant(claims, issuer, domain),
        roles=_roles(claim(claims, issuer.roles_claim or profile.roles_claim), issuer),
        expires_at=_expiry(claims.get("exp")),
    )


def claim(claims: Mapping[str, Any], path: str) -> Any:
    """The value of a claim; ``a.b`` is ``b`` in ``a``, unless a claim has this whole name."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for name in path.split("."):
        if not isinstance(found, Mapping) or name not in found:
            return None
        found = found[name]
    return found


def _tenant(claims: Mapping[str, Any], issuer: Issuer, domain: str) -> str:
    if issuer.tenant is not None:
        return issuer.tenant
    text = domain or claim(claims, issuer.tenant_claim)
    if isinstance(text, str) and issuer.tenants is not None:
        text = issuer.tenants.get(text)
    if not isinstance(text, str) or not is_tenant(text):
        raise Unauthenticated("the token names no tenant that is served here")
    return text


def _roles(value: Any, issuer: Issuer) -> frozenset[Role]:
    """The roles in a claim: a list, or names separated by commas. Other names mean nothing."""
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list):
        return frozenset()
    known = issuer.role_names
    return frozenset(
        known[name.strip()] for name in names if isinstance(name, str) and name.strip() in known
    )


def _expiry(value: Any) -> datetime:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= MAX_TIME:
        raise Unauthenticated("the token has no expiry that can be one")
    return datetime.fromtimestamp(value, UTC)
