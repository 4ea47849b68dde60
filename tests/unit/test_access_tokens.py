"""API tokens and permissions: the format, the fold, and what may be asked for."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

import builders as b
from abaco_api.access.access_directory import AccessDirectories
from abaco_api.access.authenticator import Authenticator
from abaco_api.access.domain import api_token
from abaco_api.access.domain.access_errors import Forbidden, TooManyFailures, Unauthenticated
from abaco_api.access.domain.access_fold import AccessFold, Token, permissions_of_history
from abaco_api.access.domain.failure_limit import FailureLimit
from abaco_api.access.domain.permission_requests import MAX_USERS, decide_set
from abaco_api.access.domain.principal import WORLD, Principal, PrincipalKind, Role
from abaco_api.access.domain.token_requests import MAX_TOKENS, TokenRequest, decide_create, may_see
from abaco_api.access.jwt_verifier import JwtVerifier
from abaco_api.api_errors import BadParameter
from abaco_proto import events as ev
from abaco_proto.envelope import format_time
from abaco_proto.errors import Refused
from abaco_proto.events import PermissionLevel
from fakes import InMemoryEventLog

NONE, READ, EXECUTE, UPDATE = PermissionLevel


@given(st.binary(min_size=32, max_size=32))
def test_a_token_has_one_form(random: bytes) -> None:
    token = api_token.generate(random)
    assert len(token.text) == 59
    assert api_token.token_id_of(token.text) == token.token_id == token.text[10:18]
    assert api_token.matches(token.text, api_token.digest(token.text))
    assert token.text not in repr(token)


@given(st.integers(0, 58), st.sampled_from("0aZ_é\0"))
def test_a_mistyped_token_is_none(at: int, character: str) -> None:
    text = api_token.generate(bytes(range(32))).text
    damaged = text[:at] + character + text[at + 1 :]
    assert (api_token.token_id_of(damaged) is None) == (damaged != text)


@given(st.text())
def test_another_text_is_no_token(text: str) -> None:
    assert api_token.token_id_of(text) is None


def test_a_known_token_has_known_characters() -> None:
    """The format is a contract with secret scanners."""
    text = api_token.generate(bytes(32)).text
    assert text == "abaco_pat_" + "0" * 43 + "3RfOUu"


def folded(*events: ev.Event) -> AccessFold:
    fold = AccessFold()
    for recorded in b.history(*events):
        fold.apply(recorded)
    return fold


def registered(owner: str = "alice", actor_id: str = "foo_0") -> ev.ActorRegistered:
    return ev.ActorRegistered(actor_id=actor_id, definition=b.definition(), owner=owner)


def level_set(user: str, level: PermissionLevel) -> ev.PermissionSet:
    return ev.PermissionSet(actor_id="foo_0", user=user, level=level)


def test_the_creator_may_update() -> None:
    fold = folded(registered())
    assert fold.permissions("foo_0").levels == {"alice": UPDATE}
    assert fold.readable("alice") == {"foo_0"}
    assert fold.readable("bob") == set()


def test_an_actor_of_nobody_has_no_permissions() -> None:
    assert folded(registered("")).permissions("foo_0").levels == {}


def test_levels_replace_one_another_and_keep_the_index() -> None:
    fold = folded(registered(), level_set("bob", EXECUTE), level_set(WORLD, READ))
    assert fold.readable("bob") == fold.readable("carol") == {"foo_0"}
    fold = folded(registered(), level_set("bob", EXECUTE), level_set("bob", NONE))
    assert fold.permissions("foo_0").levels == {"alice": UPDATE}
    assert fold.readable("bob") == set()
    fold = folded(registered(), level_set("bob", NONE), level_set("carol", READ))
    assert fold.permissions("foo_0").levels == {"alice": UPDATE, "carol": READ}
    assert fold.permissions("foo_0").head == 3


def test_only_a_reduction_is_reported() -> None:
    fold = AccessFold()
    events = (
        *(registered(), level_set("bob", READ), level_set("bob", UPDATE)),
        *(level_set("bob", READ), b.token_created(), ev.TokenUsed(token_id="x", date="2026-01-02")),
        *(ev.TokenRevoked(token_id="AbCd1234"), ev.ActorDeleted(actor_id="foo_0")),
    )
    reduced = [fold.apply(recorded) for recorded in b.history(*events)]
    assert reduced == [False, False, False, True, False, False, True, True]


def test_events_that_are_applied_again_change_nothing() -> None:
    history = b.history(registered(), level_set("bob", UPDATE), level_set("bob", READ))
    fold = AccessFold()
    for recorded in (*history, *history):
        fold.apply(recorded)
    assert fold.permissions("foo_0").levels["bob"] is READ


def test_a_deleted_actor_is_dropped_and_its_history_still_says_who_may_read() -> None:
    history = b.history(registered(), level_set("bob", READ), ev.ActorDeleted(actor_id="foo_0"))
    fold = AccessFold()
    for recorded in history:
        fold.apply(recorded)
    assert "foo_0" not in fold
    assert fold.readable("alice") == fold.readable("bob") == set()
    assert permissions_of_history(history) == {"alice": UPDATE, "bob": READ}


def test_a_token_lives_from_its_creation_to_its_revocation() -> None:
    fold = folded(b.token_created(), ev.TokenUsed(token_id="AbCd1234", date="2026-01-03"))
    token = fold.token("AbCd1234")
    assert token is not None
    assert (token.owner, token.roles) == ("alice", frozenset({Role.DEVELOPER}))
    assert str(token.last_used) == "2026-01-03"
    principal = token.principal("default")
    assert (principal.kind, principal.id, principal.user) == ("token", "AbCd1234", "alice")
    assert principal.actors == frozenset({"foo_0"})
    fold = folded(b.token_created(), ev.TokenRevoked(token_id="AbCd1234"))
    assert fold.token("AbCd1234") is None
    assert list(fold.tokens("alice")) == list(fold.tokens()) == []


def test_a_role_that_is_unknown_here_gives_nothing() -> None:
    token = folded(b.token_created(roles=("admin", "emperor"))).token("AbCd1234")
    assert token is not None
    assert token.roles == {Role.ADMIN}


async def test_expired_tokens_are_forgotten() -> None:
    log, now = InMemoryEventLog(), datetime.now(UTC)
    for n in range(50):
        for kind, seconds in (("Old", -1), ("New", 3600)):
            expires_at = format_time(now + timedelta(seconds=seconds))
            event = b.token_created(f"{kind}{n:05}", owner=f"user {n}", expires_at=expires_at)
            await log.append(b.envelope_of(event))
    await log.append(b.envelope_of(ev.TokenRevoked(token_id="New00000")))
    directories = AccessDirectories(log, seconds=30)
    run = asyncio.create_task(directories.run())
    await directories.ready()
    run.cancel()
    assert len(directories._tenants_of) == 49
    directory = directories.of("default")
    assert [token.token_id for token in directory.fold.tokens("user 1")] == ["New00001"]
    assert len(list(directory.fold.tokens())) == 49
    directories._drop_expired(now + timedelta(hours=2))
    assert directories._tenants_of == {}
    assert list(directory.fold.tokens()) == []


async def test_a_token_that_another_process_has_just_made_is_known() -> None:
    log = InMemoryEventLog()
    expires_at = format_time(datetime.now(UTC) + timedelta(hours=1))
    sha256 = api_token.digest(TOKEN.text)
    event = b.token_created(TOKEN.token_id, sha256=sha256, expires_at=expires_at)
    await log.append(b.envelope_of(event))
    directories = AccessDirectories(log, seconds=30)
    directories._caught_up.set()  # at the end of the log as it was, before the token
    failures = FailureLimit(burst=1, per_minute=1)
    authenticator = Authenticator(directories, JwtVerifier([]), failures)

    asked = asyncio.create_task(authenticator.principal([f"Bearer {TOKEN.text}"], [], "::1"))
    await asyncio.sleep(0)
    run = asyncio.create_task(directories.run())
    principal = await asked
    assert principal is not None
    assert principal.id == TOKEN.token_id

    unknown = [f"Bearer {api_token.generate(bytes(32)).text}"]
    with pytest.raises(Unauthenticated):
        await authenticator.principal(unknown, [], "::1")
    log.available = False
    with pytest.raises(TooManyFailures):  # beyond the limit, the log is not read
        await authenticator.principal(unknown, [], "::1")
    run.cancel()


def test_a_level_that_a_user_has_is_no_event() -> None:
    assert decide_set("foo_0", "bob", READ, {"bob": READ}) == []
    assert decide_set("foo_0", "bob", NONE, {"alice": READ}) == []
    assert decide_set("foo_0", "bob", NONE, {"bob": READ}) == [level_set("bob", NONE)]


def test_not_everybody_has_a_level_on_one_actor() -> None:
    full = {f"user {n}": READ for n in range(MAX_USERS)}
    with pytest.raises(Refused, match="revoke one"):
        decide_set("foo_0", "bob", READ, full)
    assert decide_set("foo_0", "user 1", UPDATE, full) == [level_set("user 1", UPDATE)]
    assert decide_set("foo_0", "user 1", NONE, full) == [level_set("user 1", NONE)]


# -- requests --------------------------------------------------------------------------------------

TOKEN = api_token.generate(bytes(range(32)))
ALICE = Principal(
    kind=PrincipalKind.USER,
    id="alice",
    user="alice",
    tenant="default",
    roles=frozenset({Role.DEVELOPER, Role.READER}),
)
ADMIN = Principal(
    kind=PrincipalKind.USER,
    id="root",
    user="root",
    tenant="default",
    roles=frozenset({Role.ADMIN}),
)


def as_token(principal: Principal, **changes: object) -> Principal:
    values = {f: getattr(principal, f) for f in Principal.__struct_fields__}
    return Principal(**{**values, "kind": PrincipalKind.TOKEN, "id": "tok", **changes})


def created(principal: Principal, **request: object) -> ev.TokenCreated:
    wanted = TokenRequest(**{"name": "laptop", **request})  # type: ignore[arg-type]
    return decide_create(principal, wanted, TOKEN, [], b.T0)


def test_a_token_has_the_rights_of_its_creator_and_is_not_in_its_event() -> None:
    event = created(ALICE)
    assert (event.owner, event.roles, event.created_by) == (
        "alice",
        ("developer", "reader"),
        "user alice",
    )
    assert event.sha256 == api_token.digest(TOKEN.text)
    assert TOKEN.text[18:] not in repr(event)


@pytest.mark.parametrize(
    "request_",
    [{"owner": "bob"}, {"roles": [Role.ADMIN]}, {"roles": [Role.READER, Role.OPERATOR]}],
)
def test_nobody_makes_a_token_with_more_rights(request_: dict[str, object]) -> None:
    with pytest.raises(Forbidden):
        created(ALICE, **request_)
    assert created(ADMIN, **request_).created_by == "user root"


def test_a_token_makes_no_tokens_unless_it_is_an_admins() -> None:
    with pytest.raises(Forbidden):
        created(as_token(ALICE))
    for limits in ({"read_only": True}, {"actors": frozenset({"foo_0"})}):
        with pytest.raises(Forbidden):
            created(as_token(ADMIN, **limits))
    soon = b.T0 + timedelta(hours=1)
    event = created(as_token(ADMIN, expires_at=soon), owner="bob", roles=[Role.DEVELOPER])
    assert (event.owner, event.expires_at) == ("bob", format_time(soon))
    assert event.created_by == "token tok"


@pytest.mark.parametrize(
    ("named", "value"),
    [
        *(("name", ""), ("name", "x" * 101), ("name", "a\nb")),
        *(("days", 0), ("days", 367), ("actors", []), ("actors", ["no id"])),
        *(("owner", WORLD), ("owner", "a\tb")),
    ],
)
def test_a_malformed_parameter_is_named(named: str, value: object) -> None:
    with pytest.raises(BadParameter, match=named):
        created(ADMIN, **{named: value})


def test_nobody_has_tokens_without_end() -> None:
    token = folded(b.token_created()).token("AbCd1234")
    assert token is not None
    wanted = TokenRequest(name="one more")
    with pytest.raises(Refused, match="revoke one"):
        decide_create(ALICE, wanted, TOKEN, [token] * MAX_TOKENS, b.T0)


def test_everybody_sees_its_own_tokens_and_an_admin_all() -> None:
    token = folded(b.token_created(owner="bob")).token("AbCd1234")
    assert isinstance(token, Token)
    assert may_see(ADMIN, token)
    assert not may_see(ALICE, token)
    assert not may_see(as_token(ADMIN, actors=frozenset({"foo_0"})), token)
