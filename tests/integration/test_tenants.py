"""Three tenants on one stack: two have an actor of the same id, the third has none.

Every GET of the route table is asked by each of them about what is another's.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress

import httpx
import msgspec
import pytest

import builders as b
from abaco_api import admin_token
from abaco_api.access.domain.principal import Role
from abaco_api.access.domain.rules import RULES
from abaco_api.access.domain.token_requests import TokenRequest
from abaco_api.api_settings import ApiSettings
from abaco_api.as_of.as_of_parameter import AS_OF
from abaco_api.contract.operation import Operation
from abaco_api.http.application import DOCUMENTS
from abaco_api.routes import OPERATIONS
from abaco_jetstream import Connection, JetStreamEventLog, JetStreamOutputLog
from abaco_proto import events as ev
from abaco_proto.output import Output
from api_stage import Api, becomes_ready, result_of, whole_stage
from deadlines import LIMIT_SECONDS
from servers import PostgresServer

RED, BLUE, GREEN = "default", "blue", "green"
MARKS = {RED: "red-secret", BLUE: "blue-secret"}
ACTOR = "/actors/foo_0"
EXECUTION = f"{ACTOR}/executions/foo_0_exc_0"
STREAM_SECONDS = 2.0

GETS = [operation for operation in OPERATIONS if operation.method == "GET"]
PATHS = [(operation.path, operation) for operation in GETS] + [(path, None) for path in DOCUMENTS]


class Tenant(msgspec.Struct, frozen=True):
    """A tenant, its administrator's header, and what others may try to name."""

    name: str
    headers: dict[str, str]
    token_id: str
    nonce_id: str = ""
    sequence: int = 0

    def url(self, path: str) -> str:
        """The path of something of this tenant."""
        return path.format(
            actor_id="foo_0",
            execution_id="foo_0_exc_0",
            worker_id="foo_0_wkr_0",
            subscription_id="foo_0_sub_1",
            token_id=self.token_id,
            nonce_id=self.nonce_id,
            sequence=self.sequence,
        )


@pytest.fixture(scope="module")
def api(shared_postgres: PostgresServer) -> Iterator[Api]:
    with whole_stage(shared_postgres, "tenants", auth="on") as running:
        yield running


@pytest.fixture
async def client(api: Api) -> AsyncGenerator[httpx.AsyncClient, None]:
    async with httpx.AsyncClient(base_url=api.url, timeout=LIMIT_SECONDS) as client:
        await becomes_ready(client)
        yield client


@pytest.fixture(scope="module")
def tenants(api: Api) -> dict[str, Tenant]:
    """The same ids in two tenants, nothing in the third."""
    return asyncio.run(prepare(api))


async def prepare(api: Api) -> dict[str, Tenant]:
    async with httpx.AsyncClient(base_url=api.url, timeout=LIMIT_SECONDS) as client:
        await becomes_ready(client)
        found = {name: await administrator(api, name) for name in (RED, BLUE, GREEN)}
        for name in MARKS:
            nonce_id = await fill(api, client, found[name])
            events = await client.get("/actors/foo_0/events", headers=found[name].headers)
            first = result_of(events)[0]["seq"]
            found[name] = msgspec.structs.replace(found[name], nonce_id=nonce_id, sequence=first)
        return found


async def administrator(api: Api, tenant: str) -> Tenant:
    settings = ApiSettings(nats_url=api.nats_url, append_timeout_seconds=30)
    name = MARKS.get(tenant, tenant)
    request = TokenRequest(name=name, owner=f"{name}-owner", roles=[Role.ADMIN])
    text = await admin_token.create(settings, request, tenant)
    token_id = text.removeprefix("abaco_pat_")[:8]
    return Tenant(name=tenant, headers={"authorization": f"Bearer {text}"}, token_id=token_id)


async def fill(api: Api, client: httpx.AsyncClient, tenant: Tenant) -> str:
    """An actor with all that an actor can have, with the mark of its tenant; its nonce's id."""
    mark, headers = MARKS[tenant.name], tenant.headers
    body = {"image": f"{mark}/image", "name": "foo", "description": mark}
    answer = await client.post("/actors", json=body, headers=headers)
    assert result_of(answer, 201)["id"] == "foo_0"
    posts = (
        ("state", {"state": mark}),
        ("permissions", {"user": mark, "level": "READ"}),
        ("subscriptions", {"event_pattern": "*.actor.deleted"}),
    )
    for path, posted in posts:
        answer = await client.post(f"{ACTOR}/{path}", json=posted, headers=headers)
        assert answer.is_success, answer.text
    posted = {"level": "READ", "description": mark}
    answer = await client.post(f"{ACTOR}/nonces", json=posted, headers=headers)
    nonce_id: str = result_of(answer, 201)["id"]
    sent = await client.post(f"{ACTOR}/messages", json={"message": mark}, headers=headers)
    message = int(sent.headers["Abaco-Sequence"])
    connection = Connection(api.nats_url, name="test")
    await connection.open()
    try:
        log, text = JetStreamEventLog(connection), mark.encode()
        events: list[ev.Event] = [
            b.requested(),
            b.ready(location=mark),
            b.assigned(message_sequence=message, actor_sequence=1),
            b.started(),
            b.finished(log_bytes=len(text)),
        ]
        sequences = [await log.append(b.envelope_of(e, tenant=tenant.name)) for e in events]
        chunk = Output(
            tenant=tenant.name,
            actor_id="foo_0",
            execution_id="foo_0_exc_0",
            attempt=1,
            offset=0,
            data=text,
        )
        await JetStreamOutputLog(connection).write(chunk)
    finally:
        await connection.close()
    headers = {**headers, "Abaco-After": str(sequences[-1])}
    result_of(await client.get(ACTOR, headers=headers))
    return nonce_id


def variants(path: str, operation: Operation | None) -> list[str]:
    """The path, and the same as of the end of the log if it has a past."""
    is_past = operation is not None and AS_OF in {p.name for p in operation.query}
    return [path, f"{path}?as_of={{head}}"] if is_past else [path]


@pytest.mark.parametrize(("path", "operation"), PATHS, ids=[path for path, _ in PATHS])
async def test_a_get_shows_nothing_of_another_tenant(
    client: httpx.AsyncClient, tenants: dict[str, Tenant], path: str, operation: Operation | None
) -> None:
    red = tenants[RED]
    head = result_of(await client.get("/audit/head", headers=red.headers))["sequence"]
    for variant in variants(path, operation):
        url = red.url(variant.replace("{head}", str(head)))
        for asking in (tenants[BLUE], tenants[GREEN]):
            answer = await client.get(url, headers=asking.headers)
            assert MARKS[RED] not in answer.text, (asking.name, answer.text)
            assert answer.status_code in (200, 403, 404), (asking.name, answer.text)
            if asking.name == GREEN and "{actor_id}" in path:
                assert answer.status_code == 404, answer.text
            if RULES["GET", path].installation:
                assert answer.status_code == 403, answer.text
            if any(name in path for name in ("{token_id}", "{nonce_id}", "{sequence}")):
                assert answer.status_code == 404, answer.text
    if operation is not None and operation.kind == "query" and not path.endswith("/diff"):
        result_of(await client.get(red.url(path), headers=red.headers))


async def test_each_sees_its_own(client: httpx.AsyncClient, tenants: dict[str, Tenant]) -> None:
    """So the marks are in what the test above looks for them in."""
    for name, mark in MARKS.items():
        for path in (
            *("/actors", ACTOR, f"{ACTOR}/state", f"{ACTOR}/permissions", f"{ACTOR}/workers"),
            *(f"{EXECUTION}/logs", f"{ACTOR}/events", "/events", "/tokens"),
        ):
            answer = await client.get(path, headers=tenants[name].headers)
            assert mark in answer.text, (path, answer.text)


@pytest.mark.parametrize("path", ["/events", f"{ACTOR}/events", f"{EXECUTION}/logs?follow=true"])
async def test_a_stream_shows_nothing_of_another_tenant(
    client: httpx.AsyncClient, tenants: dict[str, Tenant], path: str
) -> None:
    url = path if "?" in path else f"{path}?after=0"

    async def read(tenant: Tenant) -> str:
        found = ""
        headers = {**tenant.headers, "accept": "text/event-stream"}
        with suppress(TimeoutError):
            async with (
                asyncio.timeout(STREAM_SECONDS if tenant.name != RED else LIMIT_SECONDS),
                client.stream("GET", url, headers=headers) as answer,
            ):
                async for text in answer.aiter_text():
                    found += text
                    if MARKS[RED] in found:
                        break
        return found

    red, blue, green = [await read(tenants[name]) for name in (RED, BLUE, GREEN)]
    assert MARKS[RED] in red
    assert MARKS[RED] not in blue + green


async def test_what_one_changes_is_its_own(
    client: httpx.AsyncClient, tenants: dict[str, Tenant]
) -> None:
    for operation in OPERATIONS:
        if operation.method == "GET" or "{actor_id}" not in operation.path:
            continue
        url = tenants[RED].url(operation.path)
        body: dict[str, str] | None = {} if operation.method in ("POST", "PUT") else None
        who = tenants[GREEN].headers
        answer = await client.request(operation.method, url, json=body, headers=who)
        assert answer.status_code in (400, 404), (url, answer.text)
        assert MARKS[RED] not in answer.text
    key = {"Idempotency-Key": "one"}
    message = {"message": "again"}
    sent = [
        await client.post(
            f"{ACTOR}/messages", json=message, headers={**tenants[name].headers, **key}
        )
        for name in MARKS
    ]
    assert [result_of(answer)["execution_id"] for answer in sent] == ["foo_0_exc_1"] * 2
    assert sent[0].headers["Abaco-Sequence"] != sent[1].headers["Abaco-Sequence"]
