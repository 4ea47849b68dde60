"""Nonces: what may be asked for, how their uses are counted, and what a process knows of them."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

import builders as b
from abaco_api.access.access_directory import AccessDirectories
from abaco_api.access.authenticator import Authenticator
from abaco_api.access.domain import api_token, nonce_requests
from abaco_api.access.domain.access_errors import Unauthenticated
from abaco_api.access.domain.access_fold import AccessFold, nonce_of
from abaco_api.access.domain.failure_limit import FailureLimit
from abaco_api.access.domain.nonce_requests import (
    MAX_NONCES,
    MAX_USES,
    NonceRequest,
    NonceUses,
    uses_after,
)
from abaco_api.access.domain.principal import Principal, PrincipalKind
from abaco_api.access.jwt_verifier import JwtVerifier
from abaco_api.access.nonce_history import MAX_CACHED, NonceUsesCache
from abaco_api.api_errors import BadParameter
from abaco_proto import envelope
from abaco_proto import events as ev
from abaco_proto.errors import Refused, Unavailable, Unknown
from abaco_proto.events import PermissionLevel
from abaco_proto.names import type_filter
from fakes import InMemoryEventLog

TEXT = api_token.generate(bytes(range(32)), api_token.NONCE_PREFIX)
ALICE = Principal(kind=PrincipalKind.USER, id="alice", user="alice", tenant="default")
REDEEMED = ev.NonceRedeemed(nonce_id="AbCd1234", use=1)


def folded(*events: ev.Event) -> AccessFold:
    fold = AccessFold()
    for recorded in b.history(*events):
        fold.apply(recorded)
    return fold


@given(st.binary(min_size=32, max_size=32))
def test_a_nonce_is_no_token_and_a_token_is_no_nonce(random: bytes) -> None:
    nonce = api_token.generate(random, api_token.NONCE_PREFIX)
    token = api_token.generate(random)
    assert api_token.token_id_of(nonce.text, api_token.NONCE_PREFIX) == nonce.token_id
    assert api_token.token_id_of(nonce.text) is None
    assert api_token.token_id_of(token.text, api_token.NONCE_PREFIX) is None
    assert nonce.text not in repr(nonce)


def test_only_the_digest_is_in_the_event() -> None:
    request = NonceRequest(level=PermissionLevel.READ, max_uses=3, description="é")
    event = nonce_requests.decide_create(ALICE, "foo_0", request, TEXT, [])
    assert event == ev.NonceCreated(
        nonce_id=TEXT.token_id,
        actor_id="foo_0",
        sha256=api_token.digest(TEXT.text),
        level=PermissionLevel.READ,
        max_uses=3,
        description="é",
        owner="alice",
    )
    assert TEXT.text[18:].encode() not in envelope.encode(event)


@pytest.mark.parametrize(
    "request_",
    [
        NonceRequest(max_uses=0),
        NonceRequest(max_uses=-2),
        NonceRequest(max_uses=MAX_USES + 1),
        NonceRequest(description="a" * 1001),
        NonceRequest(description="\0"),
    ],
)
def test_what_cannot_be_asked_for(request_: NonceRequest) -> None:
    with pytest.raises(BadParameter):
        nonce_requests.decide_create(ALICE, "foo_0", request_, TEXT, [])


def test_an_actor_has_so_many_nonces() -> None:
    one = nonce_of(b.nonce_created(), b.T0)
    most = [one] * (MAX_NONCES - 1)
    nonce_requests.decide_create(ALICE, "foo_0", NonceRequest(), TEXT, most)
    with pytest.raises(Refused, match="delete one first"):
        nonce_requests.decide_create(ALICE, "foo_0", NonceRequest(), TEXT, [*most, one])


def test_it_is_redeemed_until_it_is_used_up_or_deleted() -> None:
    nonce = nonce_of(b.nonce_created(max_uses=2), b.T0)
    assert nonce_requests.decide_redeem(nonce, NonceUses(1)) == REDEEMED
    assert nonce_requests.decide_redeem(nonce, NonceUses(2, uses=1)).use == 2
    with pytest.raises(Unauthenticated, match="no uses left"):
        nonce_requests.decide_redeem(nonce, NonceUses(3, uses=2))
    with pytest.raises(Unauthenticated, match="not known"):
        nonce_requests.decide_redeem(nonce, NonceUses(3, uses=1, is_deleted=True))
    with pytest.raises(Unknown):
        nonce_requests.decide_delete("AbCd1234", NonceUses(3, is_deleted=True))
    unlimited = nonce_of(b.nonce_created(max_uses=-1), b.T0)
    assert nonce_requests.decide_redeem(unlimited, NonceUses(9, uses=10**9)).use == 10**9 + 1


def test_the_last_event_has_the_count() -> None:
    assert uses_after(b.record(b.nonce_created(), 3)) == NonceUses(3)
    assert uses_after(b.record(REDEEMED, 4)) == NonceUses(4, 1, b.T0)
    deleted = ev.NonceDeleted(nonce_id="AbCd1234", uses=7)
    assert uses_after(b.record(deleted, 5)) == NonceUses(5, 7, is_deleted=True)


def test_a_nonce_lives_from_its_creation_to_its_deletion_or_that_of_its_actor() -> None:
    fold = folded(b.registered(), b.nonce_created(), b.nonce_created("Other000"), REDEEMED)
    assert [nonce.nonce_id for nonce in fold.nonces("foo_0")] == ["AbCd1234", "Other000"]
    nonce = fold.nonce("AbCd1234")
    assert nonce is not None
    principal = nonce.principal("default")
    assert (principal.user, principal.roles, principal.text) == ("", frozenset(), "nonce:AbCd1234")
    assert (principal.actors, principal.level) == (frozenset({"foo_0"}), nonce.level)

    deleted = ev.NonceDeleted(nonce_id="AbCd1234", uses=1)
    events = (b.registered(), b.nonce_created(), deleted, deleted)
    fold = AccessFold()
    assert [fold.apply(r) for r in b.history(*events)] == [False, False, True, False]
    assert fold.nonce("AbCd1234") is None
    assert fold.nonces("foo_0") == []
    fold = folded(b.registered(), b.nonce_created(), ev.ActorDeleted(actor_id="foo_0"), REDEEMED)
    assert fold.nonce("AbCd1234") is None
    assert folded(b.nonce_created()).nonce("AbCd1234") is None  # its actor is not known


async def test_two_nonces_with_one_id_are_of_two_tenants_and_end_with_their_actors() -> None:
    log = InMemoryEventLog()
    other = api_token.generate(bytes(range(31)) + b"x", api_token.NONCE_PREFIX)
    assert other.token_id == TEXT.token_id
    for tenant, text in (("red", TEXT), ("blue", other)):
        event = b.nonce_created(text.token_id, sha256=api_token.digest(text.text))
        for each in (b.registered(), event):
            await log.append(b.envelope_of(each, tenant=tenant))
    directories = AccessDirectories(log, seconds=30)
    run = asyncio.create_task(directories.run())
    failures = FailureLimit(burst=9, per_minute=9)
    authenticator = Authenticator(directories, JwtVerifier([]), failures)
    found = [await authenticator.principal([], [t.text], "::1") for t in (TEXT, other)]
    assert [(p.kind, p.tenant) for p in found if p] == [("nonce", "red"), ("nonce", "blue")]

    deleted = ev.ActorDeleted(actor_id="foo_0")
    await log.append(b.envelope_of(deleted, tenant="red"))
    await directories.refresh(type_filter("red", "foo_0", ev.ActorDeleted))
    with pytest.raises(Unauthenticated):
        await authenticator.principal([], [TEXT.text], "::1")
    assert await authenticator.principal([], [other.text], "::1") == found[1]
    assert [authenticator.is_valid(p) for p in found if p] == [False, True]
    gone = ev.NonceDeleted(nonce_id=other.token_id, uses=0)
    await log.append(b.envelope_of(gone, tenant="blue"))
    await directories.refresh(type_filter("blue", f"_nonce-{other.token_id}", ev.NonceDeleted))
    assert directories._tenants_of == {}
    run.cancel()


@pytest.mark.parametrize(
    ("authorization", "nonces"),
    [
        ([f"Bearer {TEXT.text}"], []),
        ([f"Bearer {TEXT.text}"], [TEXT.text]),
        ([], [TEXT.text, TEXT.text]),
        ([], [api_token.generate(bytes(32)).text]),
        ([], [""]),
    ],
)
async def test_a_nonce_is_alone_and_in_its_own_header(
    authorization: list[str], nonces: list[str]
) -> None:
    directories = AccessDirectories(InMemoryEventLog(), seconds=30)
    run = asyncio.create_task(directories.run())
    failures = FailureLimit(burst=9, per_minute=9)
    authenticator = Authenticator(directories, JwtVerifier([]), failures)
    with pytest.raises(Unauthenticated):
        await authenticator.principal(authorization, nonces, "::1")
    run.cancel()


async def test_the_count_is_that_of_the_log_after_a_conflict() -> None:
    log = InMemoryEventLog()
    cache = NonceUsesCache(log, "default")
    with pytest.raises(Unavailable):
        await cache.load("AbCd1234")
    await log.append(b.envelope_of(b.nonce_created()))
    assert (await cache.load("AbCd1234")).uses == 0
    sequence = await log.append(b.envelope_of(REDEEMED))
    assert (await cache.load("AbCd1234")).uses == 0
    assert await cache.reload("AbCd1234") == await cache.load("AbCd1234")
    assert (await cache.load("AbCd1234")).head == sequence


async def test_a_last_event_that_cannot_be_read_lets_nobody_in() -> None:
    log = InMemoryEventLog()
    await log.append(b.envelope_of(b.nonce_created()))
    log.put_raw("abaco.event.default._nonce-AbCd1234.nonce.redeemed", {}, b"\xff")
    with pytest.raises(Unavailable, match="cannot be read"):
        await NonceUsesCache(log, "default").load("AbCd1234")


def test_the_cache_is_bounded() -> None:
    cache = NonceUsesCache(InMemoryEventLog(), "default")
    for n in range(MAX_CACHED + 2):
        cache.cache(str(n), NonceUses(n))
    assert len(cache._cached) == MAX_CACHED
    assert "0" not in cache._cached
