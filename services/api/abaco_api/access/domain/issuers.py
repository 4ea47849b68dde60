"""Issuers of JWTs, as ``ABACO_AUTH_ISSUERS`` describes them. Pure."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from abaco_api.access.domain.principal import Role
from abaco_proto.errors import Malformed
from abaco_proto.names import TENANT_PATTERN

Algorithm = Literal[
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "Ed25519",
]
"""The algorithms that a setting may allow: all are asymmetric."""

TenantName = Annotated[str, Meta(pattern=TENANT_PATTERN)]
Seconds = Annotated[float, Meta(ge=0, le=7 * 24 * 60 * 60)]
Text = Annotated[str, Meta(min_length=1)]


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """The claims of a product. With ``domain``, a user is ``name@domain``."""

    user_claim: str
    roles_claim: str
    domain: bool = False


PROFILES: Mapping[str, Profile] = {
    "keycloak": Profile(user_claim="preferred_username", roles_claim="realm_access.roles"),
    "wso2": Profile(
        user_claim="http://wso2.org/claims/enduser",
        roles_claim="http://wso2.org/claims/role",
        domain=True,
    ),
}

ROLES: Mapping[str, Mapping[str, Role]] = {
    "keycloak": {f"abaco-{role}": role for role in Role},
    "wso2": {f"Internal/abaco-{role}": role for role in Role},
}
"""The names that a product has for our roles, unless settings say otherwise."""


class Issuer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One issuer: where its keys are, which tokens are accepted, and what their claims mean.

    Keys come from ``jwks_url`` or ``jwks_file``. The tenant is ``tenant``, or the claim
    ``tenant_claim``, which ``tenants`` may map to other names; for ``wso2`` the domain of the user
    is mapped. ``roles`` maps names of the issuer to our roles. ``user_prefix`` keeps apart the
    users of two issuers.
    """

    issuer: Text
    audience: Text
    jwks_url: str = ""
    jwks_file: str = ""
    algorithms: tuple[Algorithm, ...] = ("RS256",)
    profile: Literal["keycloak", "wso2"] = "keycloak"
    user_claim: str = ""
    roles_claim: str = ""
    roles: dict[str, Role] | None = None
    user_prefix: str = ""
    tenant: TenantName | None = None
    tenant_claim: str = ""
    tenants: dict[str, TenantName] | None = None
    leeway_seconds: Annotated[float, Meta(ge=0, le=300)] = 30.0
    refresh_seconds: Annotated[float, Meta(ge=1, le=24 * 60 * 60)] = 300.0
    max_age_seconds: Seconds = 60 * 60.0
    retry_seconds: Annotated[float, Meta(ge=0.1, le=3600)] = 10.0
    fetch_seconds: Annotated[float, Meta(gt=0, le=60)] = 5.0

    @property
    def role_names(self) -> Mapping[str, Role]:
        """Our roles by the issuer's names."""
        return ROLES[self.profile] if self.roles is None else self.roles


def parse_issuers(text: str) -> Sequence[Issuer]:
    """The issuers in the text of the setting; none if it is empty.

    Raises:
        Malformed: the text is no such list, or an issuer in it cannot be used.
    """
    if not text.strip():
        return ()
    try:
        issuers = msgspec.json.decode(text, type=tuple[Issuer, ...])
    except (msgspec.DecodeError, UnicodeError) as error:
        raise _malformed(str(error)) from None
    names = [issuer.issuer for issuer in issuers]
    if len(names) != len(set(names)):
        raise _malformed("an issuer is listed twice")
    for issuer in issuers:
        if (problem := _problem(issuer)) is not None:
            raise _malformed(f"{issuer.issuer}: {problem}")
    return issuers


def _problem(issuer: Issuer) -> str | None:
    if bool(issuer.jwks_url) == bool(issuer.jwks_file):
        return "set either jwks_url or jwks_file"
    if issuer.jwks_url and not issuer.jwks_url.startswith(("https://", "http://")):
        return "jwks_url: expected an address that begins with https:// or http://"
    if not issuer.algorithms:
        return "algorithms: expected at least one"
    if issuer.max_age_seconds < issuer.refresh_seconds:
        return "max_age_seconds is less than refresh_seconds"
    if PROFILES[issuer.profile].domain:
        if not issuer.tenants or issuer.tenant or issuer.tenant_claim:
            return "set tenants, from the domains of users to tenants, and no other tenant"
    elif bool(issuer.tenant) == bool(issuer.tenant_claim):
        return "set either tenant or tenant_claim"
    return None


def _malformed(problem: str) -> Malformed:
    return Malformed(f"ABACO_AUTH_ISSUERS: {problem}")
