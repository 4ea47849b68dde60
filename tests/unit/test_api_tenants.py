"""Two tenants in one api process, each with an actor of the same id: neither meets the other."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

import builders as b
from abaco_api.access import access_directory as access_directory_module
from abaco_api.access.access_directory import AccessDirectories
from abaco_api.access.authenticator import Authenticator
from abaco_api.access.domain import api_token
from abaco_api.access.domain.access_errors import Unauthenticated
from abaco_api.access.domain.failure_limit import FailureLimit
from abaco_api.access.jwt_verifier import JwtVerifier
from abaco_api.api_errors import QuotaExceeded, TooMany
from abaco_api.api_settings import ApiSettings
from abaco_api.dependencies import Service, Tenants, assemble
from abaco_api.domain import commands as cmd
from abaco_api.domain.messages import decide_send
from abaco_api.domain.quotas import RequestRate
from abaco_api.explain.execution_position import HostFold
from abaco_api.streams.events.event_feed import EventFeeds
from abaco_proto import events as ev
from abaco_proto.envelope import format_time
from abaco_proto.errors import Unknown
from abaco_proto.events import PermissionLevel
from deadlines import LIMIT_SECONDS
from fakes import InMemoryEventLog, InMemoryOutputLog

RED, BLUE = "default", "blue"
TENANTS = (RED, BLUE)
CONFIG = ApiSettings(append_timeout_seconds=30)


@asynccontextmanager
async def running(
    log: InMemoryEventLog, config: ApiSettings = CONFIG
) -> AsyncGenerator[Tenants, None]:
    tenants = assemble(config, log, InMemoryOutputLog())
    loops = [asyncio.create_task(run()) for run in tenants.loops]
    try:
        yield tenants
        for loop in loops:
            if loop.done():
                loop.result()
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)


async def append(log: InMemoryEventLog, tenant: str, *events: ev.Event) -> None:
    for event in events:
        await log.append(b.envelope_of(event, tenant=tenant))


async def register(service: Service, name: str = "foo") -> str:
    command = cmd.RegisterActor(definition=b.definition(name=name))
    return (await service.actors.register(command)).actor.actor_id


async def send(service: Service, message: str) -> str:
    command = cmd.SendMessage(
        actor_id="foo_0", message=message, content_type="text/plain", environment={}
    )
    accepted = await service.inbox.accept(
        "foo_0", lambda state: decide_send(state.actor, command, state.head.next_ordinal)
    )
    return accepted.execution_id


def messages(log: InMemoryEventLog, tenant: str) -> list[str]:
    events = [r.event for r in log.events if r.tenant == tenant]
    return [e.message for e in events if isinstance(e, ev.MessageReceived)]


async def test_names_and_ordinals_are_counted_for_each_tenant() -> None:
    log = InMemoryEventLog()
    async with running(log) as tenants:
        red, blue = map(tenants.service, TENANTS)
        assert [await register(each) for each in (red, blue, red)] == ["foo_0", "foo_0", "foo_1"]
        assert [await send(each, "x") for each in (red, red, blue)] == [
            "foo_0_exc_0",
            "foo_0_exc_1",
            "foo_0_exc_0",
        ]
        await blue.actors.change(cmd.DeleteActor(actor_id="foo_0"))
        with pytest.raises(Unknown):
            await send(blue, "x")
        assert await send(red, "x") == "foo_0_exc_2"


async def test_a_tenant_is_known_with_its_first_event_and_nothing_is_restarted() -> None:
    log = InMemoryEventLog()
    async with running(log) as tenants:
        await register(tenants.service(RED))
        await append(log, BLUE, b.registered())
        entry = await tenants.service(BLUE).directory.find("foo_0")
        assert entry.actor.actor_id == "foo_0"


async def test_a_subscription_gets_the_events_of_its_tenant_alone() -> None:
    log = InMemoryEventLog()
    async with running(log) as tenants:
        for tenant in TENANTS:
            service = tenants.service(tenant)
            await register(service)
            await register(service, "all")
            pattern = "*.message.received"
            command = cmd.Subscribe(actor_id="all_0", event_pattern=pattern)
            await service.actors.change(command)
            await send(service, f"from {tenant}")
        async with asyncio.timeout(LIMIT_SECONDS):
            while not all(len(messages(log, tenant)) > 1 for tenant in TENANTS):
                await asyncio.sleep(0.01)
        for tenant, other in (TENANTS, TENANTS[::-1]):
            assert any(f"from {tenant}" in each for each in messages(log, tenant)[1:])
            assert not any(f"from {other}" in each for each in messages(log, tenant))


async def test_a_key_of_one_tenant_is_unknown_to_another() -> None:
    log = InMemoryEventLog()
    async with running(log) as tenants:
        directories = [tenants.service(tenant).access_directory for tenant in TENANTS]
        level = ev.PermissionSet(actor_id="foo_0", user="alice", level=PermissionLevel.UPDATE)
        await append(log, RED, b.registered(), level)
        await append(log, BLUE, b.registered())
        red, blue = [dict(await each.latest_permissions("foo_0")) for each in directories]
        assert red["alice"] is PermissionLevel.UPDATE
        assert "alice" not in blue


# -- quotas -------------------------------------------------------------------------------------


def test_a_tenant_sends_so_many_requests_at_once_and_then_so_many_a_second() -> None:
    rate = RequestRate(10)
    for _ in range(10):
        rate.take(100.0)
    with pytest.raises(TooMany, match="max_tenant_requests_per_second"):
        rate.take(100.0)
    for _ in range(2):
        rate.take(100.25)
    with pytest.raises(TooMany):
        rate.take(100.25)
    for _ in range(10):
        rate.take(200.0)


async def test_a_quota_is_of_one_tenant() -> None:
    log = InMemoryEventLog()
    async with running(log, msgspec.structs.replace(CONFIG, max_tenant_actors=2)) as tenants:
        red, blue = map(tenants.service, TENANTS)
        for _ in range(2):
            await register(red)
        with pytest.raises(QuotaExceeded, match="max_tenant_actors: the tenant has 2 actors"):
            await register(red)
        await register(blue)
        await red.actors.change(cmd.DeleteActor(actor_id="foo_0"))
        await append(log, BLUE, b.updated())  # read after the deletion
        await blue.directory.refresh("foo_0")
        assert await register(red) == "foo_2"


# -- tokens --------------------------------------------------------------------------------------

ONE = api_token.generate(bytes(range(32)))
OTHER = api_token.generate(bytes(range(31)) + b"x")
"""With the same id, which is unique within a tenant only."""


def token_event(token: api_token.ApiToken, owner: str) -> ev.TokenCreated:
    expires_at = format_time(datetime.now(UTC) + timedelta(days=1))
    digest = api_token.digest(token.text)
    return b.token_created(token.token_id, sha256=digest, owner=owner, expires_at=expires_at)


async def test_two_tokens_with_one_id_are_of_two_tenants() -> None:
    assert ONE.token_id == OTHER.token_id
    log = InMemoryEventLog()
    await append(log, RED, token_event(ONE, "alice"))
    await append(log, BLUE, token_event(OTHER, "bob"))
    directories = AccessDirectories(log, seconds=30)
    run = asyncio.create_task(directories.run())
    failures = FailureLimit(burst=9, per_minute=9)
    authenticator = Authenticator(directories, JwtVerifier([]), failures)
    found = [await authenticator.principal([f"Bearer {t.text}"], [], "::1") for t in (ONE, OTHER)]
    assert [(p.user, p.tenant) for p in found if p] == [("alice", RED), ("bob", BLUE)]

    await append(log, RED, ev.TokenRevoked(token_id=ONE.token_id))
    await directories.refresh_token(ONE.token_id)
    with pytest.raises(Unauthenticated):
        await authenticator.principal([f"Bearer {ONE.text}"], [], "::1")
    assert await authenticator.principal([f"Bearer {OTHER.text}"], [], "::1") == found[1]
    assert [authenticator.is_valid(p) for p in found if p] == [False, True]
    run.cancel()


async def test_tenants_that_the_log_does_not_know_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(access_directory_module, "MAX_TENANTS", 2)
    directories = AccessDirectories(InMemoryEventLog(), seconds=30)
    for tenant in TENANTS:
        directories.check_tenant(tenant)
        directories.of(tenant)
    directories.check_tenant(BLUE)
    with pytest.raises(TooMany):
        directories.check_tenant("green")


# -- events --------------------------------------------------------------------------------------


@pytest.fixture
async def feeds() -> AsyncGenerator[tuple[InMemoryEventLog, EventFeeds], None]:
    log = InMemoryEventLog()
    feeds = EventFeeds(log, max_events=8, max_bytes=10**9)
    run = asyncio.create_task(feeds.run())
    yield log, feeds
    run.cancel()


async def test_a_feed_has_the_events_of_its_tenant(
    feeds: tuple[InMemoryEventLog, EventFeeds],
) -> None:
    log, every = feeds
    seen: list[int] = []
    async with aclosing(every.of(BLUE).items(0)) as items, asyncio.timeout(LIMIT_SECONDS):
        for n in range(3):
            await append(log, RED, b.received(n))
            await append(log, BLUE, b.received(n))
        async for found in items:
            seen += [item.sequence for item in found]
            if len(seen) == 3:
                break
    assert seen == [2, 4, 6]


async def test_a_busy_tenant_does_not_displace_the_events_of_another(
    feeds: tuple[InMemoryEventLog, EventFeeds],
) -> None:
    log, every = feeds
    red, blue = every.of(RED), every.of(BLUE)
    with red.use(), blue.use():
        async with asyncio.timeout(LIMIT_SECONDS):
            while red.ring is None or blue.ring is None:
                await asyncio.sleep(0)
            await append(log, BLUE, b.received(0))
            await append(log, RED, *(b.received(n) for n in range(50)))
            while red.ring.position < len(log.events):
                await asyncio.sleep(0)
        assert [len(red.ring), len(blue.ring)] == [4, 1]
        assert blue.ring.floor == 0
    assert every._used == {}
    assert every.of(RED) is red


def test_workers_with_one_id_are_counted_for_both_tenants() -> None:
    fold = HostFold()
    history: Iterator[tuple[str, ev.Event]] = iter(
        [
            (RED, b.joined("h1", 4)),
            (RED, b.requested(0)),
            (BLUE, b.requested(0)),
            (BLUE, b.stopped(0)),
        ]
    )
    for tenant, event in history:
        fold.take(b.record(event, tenant=tenant))
    assert fold.result().workers == {"h1": 1}
    assert fold.result().free == 3
