"""Who a subscription acts for, after the request that made it. Pure.

An API token acts with its roles until it is revoked or expires. A user acts with the levels that it
has on actors: roles of a login end with the login. A nonce acts for nobody afterwards.
"""

from urllib.parse import unquote

from msgspec.structs import replace

from abaco_api.access.domain.access_fold import AccessFold
from abaco_api.access.domain.principal import Principal, PrincipalKind


def lasting(principal: Principal) -> Principal:
    """A principal with the rights that it has without a login."""
    if principal.kind is PrincipalKind.TOKEN:
        return principal
    return replace(principal, roles=frozenset(), level=None)


def subscriber_of(text: str, fold: AccessFold, tenant: str) -> Principal | None:
    """Who made a subscription, from the envelope of its event; None if it may do nothing now.

    A token may have expired: its principal has the time.
    """
    kind, *names = text.split(":")
    name = unquote(names[0]) if names else ""
    match kind:
        case PrincipalKind.TOKEN:
            token = fold.token(name)
            return None if token is None else token.principal(tenant)
        case PrincipalKind.USER | PrincipalKind.SERVICE if name:
            return Principal(kind=PrincipalKind(kind), id=name, user=name, tenant=tenant)
    return None
