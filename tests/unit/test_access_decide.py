"""Who may do what: the table of rules, and the decision, over every combination."""

from itertools import product

import pytest

import builders as b
from abaco_api.access.domain import rules
from abaco_api.access.domain.decide_access import (
    Decision,
    decide,
    forbidden_parameter,
    level_on,
    may_read_source,
    reads_all_actors,
)
from abaco_api.access.domain.principal import (
    LEVELS,
    WORLD,
    Principal,
    PrincipalKind,
    Role,
    at_least,
    is_user_name,
    local_principal,
)
from abaco_api.access.domain.rules import RULES, Rule
from abaco_proto.errors import Malformed
from abaco_proto.events import PermissionLevel

NONE, READ, EXECUTE, UPDATE = LEVELS
ALLOW, NOT_FOUND = Decision.ALLOW, Decision.NOT_FOUND
FORBIDDEN, UNAUTHENTICATED = Decision.FORBIDDEN, Decision.UNAUTHENTICATED


def user(*roles: Role, **changes: object) -> Principal:
    values: dict[str, object] = {"id": "alice", "user": "alice", "tenant": "default", **changes}
    return Principal(kind=PrincipalKind.USER, roles=frozenset(roles), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", RULES, ids=" ".join)
def test_without_a_credential_only_what_is_public_is_allowed(key: tuple[str, str]) -> None:
    expected = ALLOW if RULES[key].public else UNAUTHENTICATED
    assert decide(None, RULES[key], writes=key[0] != "GET", level=UPDATE) is expected


def test_what_is_public_is_short() -> None:
    public = {path for (_, path), rule in RULES.items() if rule.public}
    assert public == {"/healthz", "/readyz", "/openapi.json", "/asyncapi.json"}


@pytest.mark.parametrize(("has", "needs"), list(product(LEVELS, LEVELS[1:])))
def test_a_level_includes_those_below_it(has: PermissionLevel, needs: PermissionLevel) -> None:
    found = decide(user(), Rule(level=needs), writes=needs is not READ, level=has)
    if has is NONE:
        assert found is NOT_FOUND
    else:
        assert found is (ALLOW if LEVELS.index(has) >= LEVELS.index(needs) else FORBIDDEN)


def test_execute_includes_read() -> None:
    assert decide(user(), Rule(level=READ), writes=False, level=EXECUTE) is ALLOW


@pytest.mark.parametrize("role", Role)
def test_an_operator_may_halt_what_it_may_not_change(role: Role) -> None:
    principal = user(role)
    level = level_on(principal, "foo_0", {})
    halt = decide(
        principal,
        RULES["DELETE", "/actors/{actor_id}/executions/{execution_id}"],
        writes=True,
        level=level,
    )
    change = decide(principal, RULES["PUT", "/actors/{actor_id}"], writes=True, level=level)
    expected = {
        Role.ADMIN: (ALLOW, ALLOW),
        Role.OPERATOR: (ALLOW, FORBIDDEN),
        Role.DEVELOPER: (NOT_FOUND, NOT_FOUND),
    }
    assert (halt, change) == expected.get(role, (FORBIDDEN, FORBIDDEN))


@pytest.mark.parametrize("level", LEVELS)
def test_the_world_has_the_level_that_is_stored(level: PermissionLevel) -> None:
    assert level_on(user(), "foo_0", {WORLD: level}) is level


def test_the_higher_of_both_levels_applies() -> None:
    assert level_on(user(), "foo_0", {WORLD: READ, "alice": UPDATE}) is UPDATE
    assert level_on(user(), "foo_0", {WORLD: EXECUTE, "alice": NONE}) is EXECUTE
    assert level_on(user(), "foo_0", {"bob": UPDATE}) is NONE


def test_a_read_only_token_reads_and_nothing_else() -> None:
    principal = user(Role.ADMIN, read_only=True)
    level = level_on(principal, "foo_0", {"alice": UPDATE})
    for (method, path), rule in RULES.items():
        found = decide(principal, rule, writes=method != "GET", level=level)
        assert found is (ALLOW if method == "GET" else FORBIDDEN), path


def test_a_token_for_some_actors_reaches_no_other() -> None:
    principal = user(Role.ADMIN, actors=frozenset({"foo_0"}))
    assert level_on(principal, "foo_0", {}) is UPDATE
    assert level_on(principal, "foo_1", {WORLD: UPDATE}) is NONE
    for (method, path), rule in RULES.items():
        found = decide(principal, rule, writes=method != "GET", level=UPDATE)
        of_actors = rule.level is not None or rule.public or rule.filtered
        assert found is (ALLOW if of_actors else FORBIDDEN), path
    assert not reads_all_actors(principal)


def test_events_of_tokens_are_for_auditors() -> None:
    for role in Role:
        expected = role in (Role.ADMIN, Role.AUDITOR)
        assert may_read_source(user(role), "_token-AbCd1234", {}) is expected
        assert may_read_source(user(role), "_host-h1", {}) is (role is not Role.DEVELOPER)
    assert not may_read_source(user(), "_host-h1", {})
    assert may_read_source(user(), "foo_0", {"alice": READ})
    assert not may_read_source(user(), "foo_0", {"alice": NONE})


def test_an_operation_without_a_rule_is_named() -> None:
    with pytest.raises(Malformed, match=r"POST /actors/\{actor_id\}/copies has no access rule"):
        rules.check_rules([*RULES, ("POST", "/actors/{actor_id}/copies")])


def test_a_rule_without_an_operation_is_named() -> None:
    with pytest.raises(Malformed, match="a rule for GET /actors, which does not exist"):
        rules.check_rules(set(RULES) - {("GET", "/actors")})


@pytest.mark.parametrize(
    ("changes", "roles", "named"),
    [
        ({"privileged": True}, (), "privileged"),
        ({"privileged": True}, (Role.DEVELOPER, Role.OPERATOR), "privileged"),
        ({"privileged": True}, (Role.ADMIN,), None),
        ({"privileged": False}, (), None),
        ({"no_new_privileges": False}, (Role.OPERATOR,), "no_new_privileges"),
        ({"max_workers": 5}, (Role.DEVELOPER,), "max_workers"),
        ({"max_workers": 5}, (Role.OPERATOR,), None),
        ({"max_workers": 4}, (), None),
        ({"mem_limit": 2**30}, (Role.DEVELOPER,), "mem_limit"),
        ({"mem_limit": None}, (), None),
        ({"max_cpus": 2.0}, (), "max_cpus"),
        ({"image": "another"}, (), None),
    ],
)
def test_privileged_parameters_need_a_role(
    changes: dict[str, object], roles: tuple[Role, ...], named: str | None
) -> None:
    after = b.definition(**changes)
    assert forbidden_parameter(user(*roles), None, after, max_workers=4) == named
    assert forbidden_parameter(user(*roles), b.definition(), after, max_workers=4) == named


def test_what_an_admin_allowed_stays_allowed_but_not_for_another_image() -> None:
    before = b.definition(privileged=True, mem_limit=2**30, max_workers=50)
    same = b.definition(privileged=True, mem_limit=2**30, max_workers=50, description="new")
    image = b.definition(privileged=True, mem_limit=2**30, max_workers=50, image="evil")
    assert forbidden_parameter(user(), before, same, max_workers=4) is None
    assert forbidden_parameter(user(), before, image, max_workers=4) == "image"
    assert forbidden_parameter(user(Role.ADMIN), before, image, max_workers=4) is None
    assert forbidden_parameter(user(), before, b.definition(image="other"), max_workers=4) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [("alice", True), ("a@b.c", True), (WORLD, False), ("", False), ("a\nb", False), (" a", False)],
)
def test_names_of_users(name: str, *, expected: bool) -> None:
    assert is_user_name(name) is expected
    assert not is_user_name("x" * 256)


def test_without_authentication_everything_is_allowed() -> None:
    principal = local_principal("default")
    for (method, path), rule in RULES.items():
        level = level_on(principal, "foo_0", {})
        assert decide(principal, rule, writes=method != "GET", level=level) is ALLOW, path
    assert at_least(level_on(principal, "foo_0", {}), UPDATE)
