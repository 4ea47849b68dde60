"""Subscriptions with access control: at each delivery, only what who made them may read."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

import builders as b
from abaco_api.access.domain.access_errors import Forbidden
from abaco_api.access.domain.principal import (
    WORLD,
    Principal,
    PrincipalKind,
    Role,
    local_principal,
)
from abaco_api.api_settings import ApiSettings
from abaco_api.commands.command_handler import Cause
from abaco_api.dependencies import Service, assemble
from abaco_api.domain import commands as cmd
from abaco_proto import envelope
from abaco_proto import events as ev
from abaco_proto.envelope import format_time
from abaco_proto.errors import Unknown
from abaco_proto.events import PermissionLevel
from abaco_proto.names import event_subject
from deadlines import LIMIT_SECONDS
from fakes import InMemoryEventLog, InMemoryOutputLog

NOBODY = local_principal("default")
NONE, READ = PermissionLevel.NONE, PermissionLevel.READ
ALICE = Principal(kind=PrincipalKind.USER, id="alice", user="alice", tenant="default")
TOKEN = Principal(
    kind=PrincipalKind.TOKEN,
    id="AbCd1234",
    user="alice",
    tenant="default",
    roles=frozenset({Role.READER}),
)


@asynccontextmanager
async def process(log: InMemoryEventLog, auth: str = "on") -> AsyncGenerator[Service, None]:
    settings: Any = {"auth": auth, "append_timeout_seconds": 30}
    tenants = assemble(ApiSettings(**settings), log, InMemoryOutputLog())
    tasks = [asyncio.ensure_future(run()) for run in tenants.loops]
    try:
        yield tenants.service("default")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def put(log: InMemoryEventLog, event: ev.Event) -> None:
    drafted = b.envelope_of(event, at=datetime.now(UTC))
    log.put_raw(drafted.subject, envelope.to_headers(drafted), envelope.encode(event))


def permission(user: str, level: PermissionLevel) -> ev.PermissionSet:
    return ev.PermissionSet(actor_id="src_0", user=user, level=level)


def allow(log: InMemoryEventLog, user: str, level: PermissionLevel) -> None:
    put(log, permission(user, level))


def prepared(**token: Any) -> InMemoryEventLog:
    """A source, two destinations, and a token of alice with the role reader."""
    log = InMemoryEventLog()
    for name in ("src", "dst", "always"):
        put(log, b.registered(f"{name}_0"))
    tomorrow = format_time(datetime.now(UTC) + timedelta(days=1))
    rights = {"roles": ("reader",), "actors": None, "expires_at": tomorrow, **token}
    put(log, b.token_created(TOKEN.id, **rights))
    return log


async def subscribe(api: Service, actor_id: str, principal: Principal) -> None:
    command = cmd.Subscribe(actor_id=actor_id, event_pattern="src_0.actor.state_set")
    await api.actors.change(command, Cause(principal=principal))


async def arrives(api: Service, log: InMemoryEventLog) -> bool:
    """Whether a change of the source comes to ``dst_0``.

    ``always_0`` gets each, and a second change is delivered only when the first one was handled.
    """
    first, second = [
        (await api.actors.change(cmd.SetState(actor_id="src_0", state=n))).sequence for n in (1, 2)
    ]

    def has(actor_id: str, sequence: int) -> bool:
        messages = [e for e in log.bodies() if isinstance(e, ev.MessageReceived)]
        return any(e.actor_id == actor_id and e.source_sequence == sequence for e in messages)

    async with asyncio.timeout(LIMIT_SECONDS):
        while not has("always_0", second):
            await asyncio.sleep(0.005)
    return has("dst_0", first)


async def revoke(api: Service, log: InMemoryEventLog, event: ev.Event) -> None:
    """Put an event into the log, and wait until the process has folded it."""
    put(log, event)
    await api.access_directory.refresh(event_subject("default", event))


@asynccontextmanager
async def subscribed(
    log: InMemoryEventLog, principal: Principal, auth: str = "on"
) -> AsyncGenerator[Service, None]:
    """A process where a principal subscribed ``dst_0``, and nobody, without login, ``always_0``."""
    async with process(log, auth) as api:
        await subscribe(api, "dst_0", principal)
        await subscribe(api, "always_0", NOBODY)
        yield api


@pytest.mark.parametrize("user", ["alice", WORLD])
async def test_a_user_gets_what_its_level_shows_as_long_as_it_has_it(user: str) -> None:
    log = prepared()
    allow(log, user, READ)
    async with subscribed(log, ALICE) as api:
        assert await arrives(api, log)
        await revoke(api, log, permission(user, NONE))
        assert not await arrives(api, log)
        await revoke(api, log, permission(user, READ))
        assert await arrives(api, log)


async def test_a_user_has_no_roles_after_its_login() -> None:
    log = prepared()
    async with subscribed(log, replace(ALICE, roles=frozenset({Role.ADMIN}))) as api:
        assert not await arrives(api, log)


async def test_a_token_has_its_roles_until_it_is_revoked(caplog: pytest.LogCaptureFixture) -> None:
    log = prepared()
    async with subscribed(log, TOKEN) as api:
        assert await arrives(api, log)
        await revoke(api, log, ev.TokenRevoked(token_id=TOKEN.id))
        for _ in range(3):
            assert not await arrives(api, log)
    lines = [line for line in caplog.messages if "are not delivered to dst_0 any more" in line]
    assert len(lines) == 1
    assert TOKEN.id in lines[0]


async def test_a_token_that_has_expired_gets_nothing() -> None:
    log = prepared(expires_at=format_time(datetime.now(UTC) - timedelta(seconds=1)))
    async with subscribed(log, TOKEN) as api:
        assert not await arrives(api, log)


async def test_without_access_control_everything_arrives_and_goes_on_with_it() -> None:
    log = prepared()
    async with subscribed(log, NOBODY, auth="off") as api:
        assert await arrives(api, log)
    async with process(log) as api:
        assert await arrives(api, log)


async def test_what_would_not_arrive_is_refused_at_once() -> None:
    log = prepared()
    admin = frozenset({Role.ADMIN})
    async with process(log) as api:
        check = api.access.check_subscription
        with pytest.raises(Forbidden, match="logged out"):
            await check(replace(ALICE, roles=admin), ">")
        with pytest.raises(Unknown):
            await check(replace(ALICE, roles=admin), "src_0.actor.state_set")
        await check(replace(TOKEN, roles=admin), ">")
