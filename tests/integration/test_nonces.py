"""Nonces with real servers: two api processes and one log."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from abaco_api import admin_token
from abaco_api.access.domain.principal import Role
from abaco_api.access.domain.token_requests import TokenRequest
from abaco_api.api_settings import ApiSettings
from abaco_jetstream import Connection, JetStreamEventLog
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded
from abaco_proto.names import inbox_filter, nonce_filter
from api_stage import Api, Json, error_of, eventually, result_of, running
from deadlines import LIMIT_SECONDS, prompt
from servers import LOOPBACK

NO_DATABASE = "postgresql://abaco@127.0.0.1:9/none"
REQUESTS, USES = 1000, 100
PATH = "/actors/foo_0/nonces"
MESSAGES = "/actors/foo_0/messages"


@pytest.fixture
async def apis(tmp_path: Path, nats_url: str) -> AsyncGenerator[list[Api], None]:
    """Two processes that have a log and no database, and an actor."""
    found = [Api(tmp_path, nats_url, NO_DATABASE, auth="on", max_requests=REQUESTS) for _ in "12"]
    with running(*found):
        yield found


@pytest.fixture
async def client(apis: list[Api]) -> AsyncGenerator[httpx.AsyncClient, None]:
    """A client of the first process, as the administrator, who has registered foo_0."""
    settings = ApiSettings(nats_url=apis[0].nats_url, append_timeout_seconds=30)
    request = TokenRequest(name="first", owner="root", roles=[Role.ADMIN])
    headers = {
        "authorization": f"Bearer {await admin_token.create(settings, request, settings.tenant)}"
    }
    async with httpx.AsyncClient(
        base_url=apis[0].url, headers=headers, timeout=LIMIT_SECONDS
    ) as client:
        registered = await client.post("/actors", data={"image": "a/b", "name": "foo"})
        result_of(registered, 201)
        yield client


async def made(client: httpx.AsyncClient, **asked: Any) -> Json:
    nonce: Json = result_of(await client.post(PATH, json=asked), 201)
    return nonce


def sent_with(nonce: Json) -> dict[str, str]:
    return {"x-nonce": nonce["nonce"]}


async def sent_alone(api: Api, nonce: Json, message: str) -> tuple[int | None, Any]:
    """Send a message on a connection of its own; the status and the answer, or None without one.

    httpx takes some milliseconds for a request, so that a thousand would not be at the same time.
    """
    body = json.dumps({"message": message})
    request = (
        f"POST {MESSAGES} HTTP/1.1\r\nHost: {LOOPBACK}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"X-Nonce: {nonce['nonce']}\r\n\r\n{body}"
    )
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            reader, writer = await asyncio.open_connection(LOOPBACK, api.port)
            writer.write(request.encode())
            head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
        return int(head.split()[1]), json.loads(answer)
    except (OSError, IndexError, ValueError):
        return None, None


async def history(nats_url: str, subjects: str) -> list[Recorded]:
    connection = Connection(nats_url, name="test", timeout=30)
    await connection.open()
    try:
        batches = JetStreamEventLog(connection).read([subjects])
        return [recorded async for batch in batches for recorded in batch]
    finally:
        await connection.close()


async def test_a_thousand_redemptions_while_a_process_is_killed(
    apis: list[Api], client: httpx.AsyncClient, nats_url: str
) -> None:
    nonce = await made(client, max_uses=USES)
    accepted: list[str] = []
    lost = 0
    half = asyncio.Event()

    async def send(n: int) -> int:
        """Send a message until there is an answer that counts; the status of that."""
        nonlocal lost
        api = apis[n % 2]
        while True:
            status, answer = await sent_alone(api, nonce, str(n))
            if status is None:
                lost += 1
                api = apis[0]
                continue
            if status == 200:
                accepted.append(answer["result"]["execution_id"])
                if len(accepted) == USES // 2:
                    half.set()
            if status not in (429, 503):
                return status
            await asyncio.sleep(0.05)

    async def kill_one() -> None:
        await half.wait()
        await asyncio.to_thread(apis[1].kill)

    killing = asyncio.create_task(kill_one())
    statuses = await asyncio.gather(*map(send, range(REQUESTS)))
    await killing
    status, late = await sent_alone(apis[0], nonce, "late")
    assert status == 401
    assert "no uses left" in late["msg"]
    assert set(statuses) == {200, 401}

    used = await history(nats_url, nonce_filter("default", nonce["id"]))
    uses = [r.event.use for r in used if isinstance(r.event, ev.NonceRedeemed)]
    assert uses == list(range(1, USES + 1))
    messages = await history(nats_url, inbox_filter("default", "foo_0"))
    whose = f"nonce:{nonce['id']}"
    assert {r.principal for r in [*used[1:], *messages]} == {whose}
    executions = [r.event.execution_id for r in messages if isinstance(r.event, ev.MessageReceived)]
    assert set(accepted) <= set(executions)
    assert len(accepted) == len(set(accepted)) == statuses.count(200)
    assert USES - lost <= len(accepted) <= len(executions) <= USES
    shown = result_of(await client.get(f"{PATH}/{nonce['id']}"))
    assert (shown["current_uses"], shown["remaining_uses"]) == (USES, 0)


async def test_a_nonce_from_its_creation_to_its_deletion(
    apis: list[Api], client: httpx.AsyncClient
) -> None:
    key = {"idempotency-key": "one"}
    asked = {"level": "READ", "max_uses": 3, "description": "for the form"}
    first = result_of(await client.post(PATH, json=asked, headers=key), 201)
    again = result_of(await client.post(PATH, json=asked, headers=key), 201)
    assert first["nonce"].startswith(first["prefix"])
    assert again == {**first, "nonce": None}
    assert (first["owner"], first["level"], first["remaining_uses"]) == ("root", "READ", 3)

    # The other process knows it at once, and what it uses is counted for both.
    other = f"{apis[1].url}/actors/foo_0"
    async with httpx.AsyncClient(headers=sent_with(first), timeout=LIMIT_SECONDS) as reader:
        assert (await reader.get(f"{other}/executions")).status_code == 503  # no database
        error_of(await reader.post(f"{other}/messages", data={"message": "no"}), 403)
        error_of(await reader.get(f"{apis[1].url}/actors/bar_0"), 404)
        [shown] = result_of(await client.get(PATH))
        assert (shown["current_uses"], shown["remaining_uses"]) == (1, 2)
        assert shown["last_use_time"] is not None
        assert "nonce" not in shown

        # A stream is one use, and ends with the nonce.
        headers = {"accept": "text/event-stream"}
        async with reader.stream("GET", f"{other}/events?after=0", headers=headers) as stream:
            assert stream.status_code == 200
            lines = stream.aiter_bytes()
            await anext(lines)
            with prompt(0.25):  # a second at most
                result_of(await client.delete(f"{PATH}/{first['id']}"))
                with suppress(httpx.TransportError):
                    async with asyncio.timeout(LIMIT_SECONDS):
                        async for _ in lines:
                            pass

        async def is_refused() -> bool:
            return (await reader.get(f"{other}/executions")).status_code == 401

        await eventually(is_refused)
    assert result_of(await client.get(PATH)) == []
    error_of(await client.get(f"{PATH}/{first['id']}"), 404)
    error_of(await client.delete(f"{PATH}/{first['id']}"), 404)


async def test_a_request_that_is_repeated_with_its_key_is_one_use(
    apis: list[Api], client: httpx.AsyncClient
) -> None:
    nonce = await made(client, max_uses=1)
    headers = {**sent_with(nonce), "idempotency-key": "once"}
    body = {"message": "hello"}
    async with httpx.AsyncClient(timeout=LIMIT_SECONDS) as http:
        answers = await asyncio.gather(
            *(
                http.post(f"{apis[n % 2].url}{MESSAGES}", data=body, headers=headers)
                for n in range(8)
            )
        )
        assert {result_of(answer)["execution_id"] for answer in answers} == {"foo_0_exc_0"}
        other = {**sent_with(nonce), "idempotency-key": "another"}
        error_of(await http.post(f"{apis[1].url}{MESSAGES}", data=body, headers=other), 401)
        changed = await http.post(
            f"{apis[1].url}{MESSAGES}", data={"message": "other"}, headers=headers
        )
        error_of(changed, 409)


async def test_the_nonces_of_a_deleted_actor_end(
    apis: list[Api], client: httpx.AsyncClient
) -> None:
    nonce = await made(client)
    assert (nonce["max_uses"], nonce["remaining_uses"], nonce["level"]) == (-1, -1, "EXECUTE")
    async with httpx.AsyncClient(headers=sent_with(nonce), timeout=LIMIT_SECONDS) as http:
        for n in range(3):
            answer = await http.post(f"{apis[n % 2].url}{MESSAGES}", data={"message": "hello"})
            result_of(answer)
        shown = result_of(await client.get(f"{PATH}/{nonce['id']}"))
        assert (shown["current_uses"], shown["remaining_uses"]) == (3, -1)
        result_of(await client.delete("/actors/foo_0"))

        async def is_refused() -> bool:
            answer = await http.post(f"{apis[1].url}{MESSAGES}", data={"message": "hello"})
            return answer.status_code == 401

        await eventually(is_refused)
