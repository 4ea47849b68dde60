"""Values at the edges of what Postgres, NATS and Python hold, in every parameter there is.

The parameters are those of the published description. Whatever a client sends is its own fault,
and the answer names the parameter.
"""

from collections.abc import AsyncGenerator, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote

import asyncpg
import httpx
import pytest

from abaco_api.queries.postgres_pool import PostgresPool
from abaco_api.queries.read_models import ReadModels
from abaco_proto.errors import Unavailable
from api_stage import Api, Json, becomes_ready, error_of, result_of, whole_stage
from deadlines import LIMIT_SECONDS
from servers import PostgresServer

NUMBERS = [
    *("-1", "0", "1.5", "1e400", "NaN", "0x10", "1_000", "²", "\uff11", "9" * 18, "9" * 400),
    *(str(2**bits + step) for bits in (31, 32, 63, 64) for step in (-1, 0)),
]
TIMES = [
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59-12:00",
    "9999-12-31T23:59:59.999999999-23:59",
    "0000-01-01T00:00:00Z",
    "10000-01-01T00:00:00Z",
    "294277-01-01T00:00:00Z",
    "-4713-11-24T00:00:00Z",
    "2026-02-30T00:00:00Z",
    "2026-01-01T00:00:60Z",
    "2026-01-01T24:00:00Z",
    "2026-01-01T00:00:00+24:00",
    *("infinity", "-infinity", "now", "epoch"),
]
TEXTS = [
    *("", " ", "\0", "a\0b", "*", ">", ".", "..", "a.>", "'", '"', "\\", "%", "_", "$1", "null"),
    *("\u00e9", "\U0001f600", "\u2028", "\ufeff", "x" * 300, "*e" * 10_000),
    *("foo_0_exc_" + "9" * 19, "foo_0_exc_" + "9" * 18, "foo_0_wkr_" + "9" * 19, "a_" + "9" * 18),
]
NASTY = [*NUMBERS, *TIMES, *TEXTS]
JSON_NUMBERS = ["1e999", "-1e999", "1" * 5000, str(2**64), "-" + str(2**63 + 1), "1e308", "0.0"]
"""As they stand in a body; Python's encoder would not write them."""

PATHS = {
    "actor_id": "foo_0",
    "execution_id": "foo_0_exc_0",
    "worker_id": "foo_0_wkr_0",
    "subscription_id": "foo_0_sub_1",
    "sequence": "1",
    "token_id": "aaaaaaaa",
    "nonce_id": "aaaaaaaa",
}


@pytest.fixture(scope="module")
def api(shared_postgres: PostgresServer) -> Iterator[Api]:
    slow = {"query_timeout_seconds": 30, "append_timeout_seconds": 30, "read_wait_seconds": 30}
    with whole_stage(shared_postgres, "api_nasty_values", **slow) as running:
        yield running
        assert "Traceback" not in running.log, running.log


@pytest.fixture
async def client(api: Api) -> AsyncGenerator[httpx.AsyncClient, None]:
    async with httpx.AsyncClient(base_url=api.url, timeout=LIMIT_SECONDS) as client:
        await becomes_ready(client)
        if (await client.get("/actors/foo_0")).status_code == 404:
            actor = {"image": "a/b", "name": "foo", "min_workers": "0"}
            result_of(await client.post("/actors", data=actor), 201)
            result_of(await client.post("/actors/foo_0/messages", data={"message": "hi"}))
            result_of(await client.delete("/actors/foo_0/messages"))  # nobody is to wait for it
        yield client


async def operations(client: httpx.AsyncClient) -> list[tuple[str, str, Json]]:
    described = (await client.get("/openapi.json")).json()
    return [
        (method.upper(), path, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]


def filled(path: str, **values: str) -> str:
    """A path whose parameters are those of ``PATHS``, or others."""
    return path.format(**{k: quote(v, safe="") for k, v in {**PATHS, **values}.items()})


async def asked(client: httpx.AsyncClient, method: str, url: str, **what: Any) -> tuple[int, str]:
    """The status of an answer, and what an error says; streams are not read."""
    async with client.stream(method, url, **what) as answer:
        failed = answer.status_code >= 400 and method != "HEAD"
        return answer.status_code, (await answer.aread()).decode() if failed else ""


def assert_named(name: str, value: str, found: tuple[int, str]) -> None:
    status, text = found
    assert status < 500, (name, value[:100], found)
    if status == 400:
        assert name in text, (name, value[:100], found)


async def test_in_queries_headers_and_paths(client: httpx.AsyncClient) -> None:
    tried = 0
    for method, path, operation in await operations(client):
        for parameter in operation["parameters"]:
            name, where = parameter["name"], parameter["in"]
            for value in NASTY if where == "query" else [*NUMBERS[::3], *TEXTS]:
                if where == "path":
                    if value in ("", ".", ".."):
                        continue  # another path
                    found = await asked(client, method, filled(path, **{name: value}))
                elif where == "query":
                    found = await asked(client, method, filled(path), params={name: value})
                else:
                    raw = value.encode("latin-1", "ignore")
                    if b"\0" in raw or len(raw) > 10_000:
                        continue  # no header
                    headers = [(name.encode(), raw.strip())]
                    found = await asked(client, method, filled(path), headers=headers)
                # With a good value too, these may miss their body, and a path names nothing.
                other = where == "path" or "requestBody" in operation
                assert_named("" if other else name, value, found)
                tried += 1
    assert tried > 1000


async def test_in_streams(client: httpx.AsyncClient) -> None:
    streamed = [("/events", "after"), ("/actors/foo_0/events", "after"), ("/events", "before")]
    streamed += [("/events", "since"), ("/events", "until"), ("/events", "type")]
    for path, name in streamed:
        for value in NASTY:
            wanted = {"Accept": "text/event-stream"}
            found = await asked(client, "GET", path, params={name: value}, headers=wanted)
            assert_named(name, value, found)
    for value in [v for v in NASTY if v.isascii() and v.isprintable() and len(v) < 1000]:
        wanted = {"Accept": "text/event-stream", "Last-Event-ID": value.strip()}
        assert_named("Last-Event-ID", value, await asked(client, "GET", "/events", headers=wanted))
        path = "/actors/foo_0/executions/foo_0_exc_0/logs"
        assert_named("Last-Event-ID", value, await asked(client, "GET", path, headers=wanted))


async def test_in_bodies(client: httpx.AsyncClient) -> None:
    described = (await client.get("/openapi.json")).json()
    for method, path, operation in await operations(client):
        if "requestBody" not in operation:
            continue
        ref = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        schema = described["components"]["schemas"][ref.rpartition("/")[2]]
        good: Json = {"image": '"a/b"', "name": '"nasty"'} if path == "/actors" else {}
        for name in schema["properties"]:
            texts = [f'"{"".join(f"{chr(92)}u{ord(c):04x}" for c in v)}"' for v in TEXTS[:12]]
            for value in [*JSON_NUMBERS, *texts, '"\\ud800"', "[[]]", '{"\\u0000": 1}', "null"]:
                fields = ", ".join(f'"{k}": {v}' for k, v in {**good, name: value}.items())
                headers = {"Content-Type": "application/json"}
                body = f"{{{fields}}}".encode()
                found = await asked(client, method, filled(path), content=body, headers=headers)
                assert found[0] < 500, (path, name, value[:100], found)


@pytest.mark.parametrize("name", ["since", "until", "as_of"])
@pytest.mark.parametrize("value", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
async def test_a_time_that_leaves_the_years_of_utc(
    client: httpx.AsyncClient, name: str, value: str
) -> None:
    path = "/actors" if name == "as_of" else "/events"
    said = error_of(await client.get(path, params={name: value}), 400)["msg"]
    assert said.startswith(f"{name}: expected a time in the years 1 to 9999 in UTC")
    for edge in ("0001-01-01T14:00:00+14:00", "9999-12-31T11:59:59-12:00"):
        result_of(await client.get(path, params={name: edge}))


async def test_what_the_driver_refuses_is_no_outage(client: httpx.AsyncClient, api: Api) -> None:
    """A bug of ours is told as one: nobody is sent to look after Postgres."""
    pool = PostgresPool(api.dsn, 30)
    models = ReadModels(pool, "default")
    try:
        beyond = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))
        for call in (
            lambda: models.last_event_at(beyond),
            lambda: models.event(2**63),
            lambda: models.known("a\0b"),
        ):
            with pytest.raises((ValueError, asyncpg.DataError)) as caught:
                await call()
            assert not isinstance(caught.value, Unavailable)
        assert await models.last_event_at(datetime(1, 1, 1, tzinfo=UTC)) == 0
    finally:
        pool.close()
