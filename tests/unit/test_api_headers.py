"""What every answer has: the id of its request, security headers, CORS; and what is published."""

import logging
from typing import Any

import pytest

from abaco_api.http.cors import parse_origins
from abaco_api.http.response_headers import request_id
from abaco_proto.errors import Malformed
from abaco_telemetry.log_format import TextFormatter
from access_stage import served

PAGE = "https://page.example"
ALWAYS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


@pytest.mark.parametrize(
    ("path", "status"),
    [("/healthz", 200), ("/openapi.json", 200), ("/nowhere", 404), ("/tokens", 401)],
)
async def test_every_answer_has_the_headers(path: str, status: int) -> None:
    async with served(auth="on") as client:
        answer = await client.get(path)
        assert answer.status_code == status
        assert {name: answer.headers[name] for name in ALWAYS} == ALWAYS
        assert len(answer.headers["x-request-id"]) == 32
        assert "strict-transport-security" not in answer.headers
        assert "access-control-allow-origin" not in answer.headers


async def test_hsts_is_a_setting() -> None:
    async with served(hsts_seconds=600) as client:
        answer = await client.get("/healthz")
        assert answer.headers["strict-transport-security"] == "max-age=600"


# -- the id of a request ---------------------------------------------------------------------------


async def test_a_client_may_name_its_request() -> None:
    async with served() as client:
        answer = await client.get("/healthz", headers={"x-request-id": "build-7.step_2"})
        assert answer.headers["x-request-id"] == "build-7.step_2"
        first, second = [(await client.get("/healthz")).headers["x-request-id"] for _ in range(2)]
        assert first != second


@pytest.mark.parametrize("sent", [b"", b"a b", b"a\nb", b"x" * 65, b'a"b', b"<b>", b"\xff", None])
def test_an_id_that_could_do_harm_is_replaced(sent: bytes | None) -> None:
    assert request_id(sent) != sent
    assert len(request_id(sent)) == 32


async def test_log_lines_about_a_request_have_its_id(caplog: pytest.LogCaptureFixture) -> None:
    lines: list[str] = []
    formatter = TextFormatter()

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(formatter.format(record))

    handler = Lines()
    logger = logging.getLogger("abaco_api")
    logger.addHandler(handler)
    try:
        with caplog.at_level(logging.INFO, "abaco_api"):
            async with served(auth="on") as client:
                headers = {"x-request-id": "one", "authorization": "Bearer nonsense"}
                await client.get("/actors", headers=headers)
    finally:
        logger.removeHandler(handler)
    [line] = [line for line in lines if "refused GET /actors" in line]
    assert line.endswith("[request one]")


# -- CORS ------------------------------------------------------------------------------------------


async def test_a_page_of_a_listed_origin_may_call() -> None:
    async with served(auth="on", cors_origins=f"{PAGE}, http://127.0.0.1:3000") as client:
        asked = {
            "origin": PAGE,
            "access-control-request-method": "PUT",
            "access-control-request-headers": "authorization, idempotency-key",
        }
        allowed = await client.options("/actors/foo_0", headers=asked)
        assert allowed.status_code == 200  # without a credential: a browser sends none
        assert allowed.headers["access-control-allow-origin"] == PAGE
        assert "access-control-allow-credentials" not in allowed.headers
        refused = await client.get("/actors", headers={"origin": PAGE})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == PAGE
        assert "Origin" in refused.headers["vary"]


@pytest.mark.parametrize(
    "origin", ["https://evil.example", f"{PAGE}.evil.example", f"{PAGE}:444", "null", "*", ""]
)
async def test_a_page_of_another_origin_may_not(origin: str) -> None:
    async with served(cors_origins=PAGE) as client:
        for method, more in (("GET", {}), ("OPTIONS", {"access-control-request-method": "GET"})):
            answer = await client.request(method, "/healthz", headers={"origin": origin, **more})
            assert "access-control-allow-origin" not in answer.headers
            assert "Origin" in answer.headers["vary"]


async def test_without_the_setting_there_is_no_cors() -> None:
    async with served() as client:
        asked = {"origin": PAGE, "access-control-request-method": "GET"}
        assert (await client.options("/healthz", headers=asked)).status_code == 405
        answer = await client.get("/healthz", headers={"origin": PAGE})
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("text", ["*", "https://*", "null", "page.example", f"{PAGE}/", "ftp://a"])
def test_only_exact_origins_can_be_listed(text: str) -> None:
    with pytest.raises(Malformed, match="ABACO_CORS_ORIGINS"):
        parse_origins(f"{PAGE}, {text}")


# -- what is published -----------------------------------------------------------------------------

DESCRIPTIONS = ("/openapi.json", "/asyncapi.json")


async def statuses(**settings: Any) -> dict[str, int]:
    async with served(**settings) as client:
        paths = (*DESCRIPTIONS, "/metrics")
        return {path: (await client.get(path)).status_code for path in paths}


async def test_documents_are_published_as_the_settings_say() -> None:
    open_, closed = dict.fromkeys(DESCRIPTIONS, 200), dict.fromkeys(DESCRIPTIONS, 401)
    missing = {**dict.fromkeys(DESCRIPTIONS, 404), "/metrics": 404}
    assert await statuses() == {**open_, "/metrics": 200}
    assert await statuses(auth="on") == {**open_, "/metrics": 401}
    assert await statuses(auth="on", publish_metrics="public") == {**open_, "/metrics": 200}
    authenticated = {"publish_descriptions": "authenticated"}
    assert await statuses(auth="on", **authenticated) == {**closed, "/metrics": 401}
    assert await statuses(**authenticated) == {**open_, "/metrics": 200}
    assert await statuses(publish_descriptions="off", publish_metrics="off") == missing


@pytest.mark.parametrize(
    ("settings", "is_shown"),
    [
        ({}, True),
        ({"publish_readiness": "off"}, False),
        ({"auth": "on"}, False),
        ({"auth": "on", "publish_readiness": "public"}, True),
    ],
)
async def test_who_sees_which_part_is_not_ready(settings: dict[str, Any], is_shown: bool) -> None:  # noqa: FBT001
    async with served(**settings) as client:
        for headers in ({}, {"authorization": "Bearer nonsense"}):
            answer = await client.get("/readyz", headers=headers)
            assert answer.status_code == 503
            body = answer.json()
            assert (body["result"] is not None) == is_shown
            assert ("postgres" in answer.text) == is_shown
