"""Issuers, claims, and the limit on failures."""

import json
from typing import Any

import pytest

from abaco_api.access.domain.access_errors import Unauthenticated
from abaco_api.access.domain.claims import claim, principal_of
from abaco_api.access.domain.failure_limit import MAX_ADDRESSES, FailureLimit, network_of
from abaco_api.access.domain.issuers import Issuer, parse_issuers
from abaco_api.access.domain.principal import Principal, Role
from abaco_proto.errors import Malformed

KEYCLOAK: dict[str, Any] = {
    "issuer": "https://sso.example/realms/abaco",
    "audience": "abaco",
    "jwks_url": "https://sso.example/realms/abaco/certs",
    "tenant": "default",
}
WSO2: dict[str, Any] = {
    "issuer": "wso2.org/products/am",
    "audience": "abaco",
    "jwks_file": "/run/secrets/keys.json",
    "profile": "wso2",
    "tenants": {"carbon.super": "default"},
}


def issuer(base: dict[str, Any], **changes: Any) -> Issuer:
    [found] = parse_issuers(json.dumps([{**base, **changes}]))
    return found


def of(base: dict[str, Any], claims: dict[str, Any], **changes: Any) -> Principal:
    return principal_of({"exp": 2000000000, **claims}, issuer(base, **changes))


def test_no_text_is_no_issuer() -> None:
    assert parse_issuers("") == parse_issuers(" \n") == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithms": ["none"]},
        {"algorithms": ["HS256"]},
        {"algorithms": []},
        {"jwks_url": ""},
        {"jwks_file": "/also"},
        {"jwks_url": "file:///etc/passwd"},
        {"tenant": None},
        {"tenant": "a.b"},
        {"tenant_claim": "t"},
        {"audience": ""},
        {"audiance": "x"},
        {"roles": {"boss": "emperor"}},
        {"max_age_seconds": 10, "refresh_seconds": 20},
        {"profile": "wso2"},
    ],
)
def test_an_issuer_that_cannot_be_used_is_named(changes: dict[str, Any]) -> None:
    with pytest.raises(Malformed, match="ABACO_AUTH_ISSUERS"):
        issuer(KEYCLOAK, **changes)
    assert issuer(KEYCLOAK).audience == "abaco"


def test_an_issuer_is_listed_once() -> None:
    with pytest.raises(Malformed, match="twice"):
        parse_issuers(json.dumps([KEYCLOAK, KEYCLOAK]))
    with pytest.raises(Malformed, match="ABACO_AUTH_ISSUERS"):
        parse_issuers("{")


def test_keycloak() -> None:
    names = ["abaco-developer", "abaco-operator", "admin", "offline_access"]
    found = of(KEYCLOAK, {"preferred_username": "alice", "realm_access": {"roles": names}})
    assert (found.kind, found.user, found.tenant) == ("user", "alice", "default")
    assert found.roles == {Role.DEVELOPER, Role.OPERATOR}


def test_wso2() -> None:
    found = of(
        WSO2,
        {
            "http://wso2.org/claims/enduser": "a@b.example@carbon.super",
            "http://wso2.org/claims/role": "Internal/everyone, Internal/abaco-admin",
        },
    )
    assert (found.user, found.tenant, found.roles) == (
        "a@b.example",
        "default",
        frozenset({Role.ADMIN}),
    )
    with pytest.raises(Unauthenticated, match="tenant"):
        of(WSO2, {"http://wso2.org/claims/enduser": "alice@other.domain"})


def test_names_of_roles_are_a_setting() -> None:
    names = {"roles": {"ops": "operator"}, "roles_claim": "groups"}
    assert of(KEYCLOAK, {"preferred_username": "a", "groups": ["ops", "x"]}, **names).roles == {
        Role.OPERATOR
    }


def test_the_tenant_may_be_a_claim() -> None:
    changes = {"tenant": None, "tenant_claim": "org.id"}
    found = of(KEYCLOAK, {"preferred_username": "a", "org": {"id": "blue"}}, **changes)
    assert found.tenant == "blue"
    for value in (None, "a.b", ["blue"], {"blue": 1}, ""):
        with pytest.raises(Unauthenticated, match="tenant"):
            of(KEYCLOAK, {"preferred_username": "a", "org": {"id": value}}, **changes)


@pytest.mark.parametrize("name", [None, "", "ABACO_WORLD", "a\nb", 7, ["alice"], "x" * 300])
def test_a_token_that_names_no_user_is_refused(name: Any) -> None:
    with pytest.raises(Unauthenticated, match="user"):
        of(KEYCLOAK, {"preferred_username": name})


def test_services_are_told_from_users() -> None:
    found = of(KEYCLOAK, {"preferred_username": "service-account-ci"})
    assert (found.kind, found.user) == ("service", "service-account-ci")
    assert of(KEYCLOAK, {"client_id": "ci"}).name == "service service-account-ci"
    assert of(KEYCLOAK, {"preferred_username": "alice", "client_id": "web"}).kind == "user"


def test_users_of_two_issuers_can_be_kept_apart() -> None:
    assert of(KEYCLOAK, {"preferred_username": "a"}, user_prefix="sso:").user == "sso:a"


@pytest.mark.parametrize("exp", [None, "1", -1, 1e300, True, float("nan")])
def test_an_expiry_that_is_no_time_is_refused(exp: Any) -> None:
    with pytest.raises(Unauthenticated, match="expiry"):
        principal_of({"preferred_username": "a", "exp": exp}, issuer(KEYCLOAK))


def test_a_path_of_a_claim_is_a_name_first() -> None:
    claims = {"a.b": 1, "a": {"b": 2, "c": 3}}
    assert (claim(claims, "a.b"), claim(claims, "a.c"), claim(claims, "a.x.y")) == (1, 3, None)


# -- failures --------------------------------------------------------------------------------------


def test_failures_come_back_with_time() -> None:
    limit = FailureLimit(burst=3, per_minute=60)
    for second in range(3):
        assert not limit.is_exceeded("10.0.0.1", second / 10)
        limit.failed("10.0.0.1", second / 10)
    assert limit.is_exceeded("10.0.0.1", 0.3)
    assert not limit.is_exceeded("10.0.0.2", 0.3)
    assert not limit.is_exceeded("10.0.0.1", 1.5)


def test_addresses_are_forgotten() -> None:
    limit = FailureLimit(burst=1, per_minute=1)
    for number in range(MAX_ADDRESSES + 1):
        limit.failed(f"10.{number >> 16}.{(number >> 8) & 255}.{number & 255}", 0)
    assert not limit.is_exceeded("10.0.0.0", 0)
    assert limit.is_exceeded("10.0.0.1", 0)


def test_a_network_of_ipv6_is_one_address() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") == "2001:db8::/64"
    assert network_of("::ffff:10.0.0.1") == "10.0.0.1"
    assert network_of("nonsense") == "unknown"
