"""What a client can get wrong: the right status, in the envelope, naming the parameter."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from api_stage import Api, error_of, result_of, whole_stage
from deadlines import LIMIT_SECONDS
from servers import LOOPBACK, PostgresServer

GOOD = {"image": "a/b", "name": "good"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def api(shared_postgres: PostgresServer) -> Iterator[Api]:
    with whole_stage(shared_postgres, "api_bad_input") as running:
        result_of(httpx.post(f"{running.url}/actors", data=GOOD), 201)
        yield running
        assert "Traceback" not in running.log, running.log


def env(value: Any) -> dict[str, Any]:
    return {**GOOD, "default_environment": value}


REGISTRATIONS: list[tuple[str, int, dict[str, Any]]] = [
    ("image", 400, {"name": "foo"}),
    ("name", 400, {"image": "a/b"}),
    ("name", 400, {"image": "a/b", "name": ""}),
    ("name", 400, {"image": "a/b", "name": "x" * 10_000}),
    *[("name", 400, {"image": "a/b", "name": f"a{c}"}) for c in (".", "*", ">", " ", "😀", "\0")],
    ("image", 400, {"image": "", "name": "foo"}),
    ("image", 400, {"image": "UPPER", "name": "foo"}),
    ("image", 400, {"image": "a" * 10_000, "name": "foo"}),
    ("image", 400, {"image": ["a"], "name": "foo"}),
    ("image", 400, {"image": None, "name": "foo"}),
    ("stateless", 400, {**GOOD, "stateless": "yes"}),
    ("min_workers", 400, {**GOOD, "min_workers": "many"}),
    ("min_workers", 400, {**GOOD, "min_workers": -1}),
    ("min_workers", 400, {**GOOD, "min_workers": 3, "max_workers": 2}),
    ("max_workers", 400, {**GOOD, "max_workers": 10**30}),
    ("description", 400, {**GOOD, "description": {"a": 1}}),
    ("default_environment", 400, env({"": "x"})),
    ("default_environment", 400, env({"a=b": "x"})),
    ("default_environment", 400, env({"a\0b": "x"})),
    ("default_environment", 400, env({"a": "\0"})),
    ("default_environment", 400, env({"a": 5})),
    ("default_environment", 400, env("text")),
    ("default_environment", 400, env(["a"])),
    ("default_environment", 413, env({"a": "x" * 200_000})),
    ("colour", 400, {**GOOD, "colour": "blue"}),
]


@pytest.mark.parametrize(("parameter", "status", "body"), REGISTRATIONS)
def test_a_bad_registration(api: Api, parameter: str, status: int, body: dict[str, Any]) -> None:
    answer = httpx.post(f"{api.url}/actors", json=body)
    assert parameter in error_of(answer, status)["msg"]


@pytest.mark.parametrize(
    "raw",
    [
        "{",
        "not json",
        "[]",
        '["image"]',
        "5",
        "null",
        '"text"',
        "true",
        b"\xff\xfe",
        b'{"image": "\xff"}',
        '{"image": "\\ud800"}',
        '{"image": "a", "image": "b"}',
        "[" * 50_000,
        '{"image": ' + "[" * 200 + "]" * 200 + "}",
        '{"image": 1e999}',
        '{"image": NaN}',
    ],
)
@pytest.mark.parametrize("path", ["/actors", "/actors/good_0/messages", "/actors/good_0/state"])
def test_a_body_that_is_not_what_it_says(api: Api, path: str, raw: str | bytes) -> None:
    error_of(httpx.post(f"{api.url}{path}", content=raw, headers=JSON), 400)


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/xml", "application/json5", "", "/", "application/msgpack"]
)
def test_an_unknown_content_type(api: Api, kind: str) -> None:
    answer = httpx.post(f"{api.url}/actors", content=b"{}", headers={"Content-Type": kind})
    assert "Content-Type" in error_of(answer, 415)["msg"]


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"name=%ff&image=a", "application/x-www-form-urlencoded"),
        (b"name=a&name=b&image=a", "application/x-www-form-urlencoded"),
        (b"nonsense", "multipart/form-data"),
        (b"nonsense", "multipart/form-data; boundary=x"),
        (b"", "multipart/form-data; boundary=x"),
    ],
)
def test_a_bad_form(api: Api, raw: bytes, kind: str) -> None:
    error_of(httpx.post(f"{api.url}/actors", content=raw, headers={"Content-Type": kind}), 400)


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/actors/nobody_0", "nobody_0"),
        ("/actors/nobody", "nobody"),
        ("/actors/*", "*"),
        ("/actors/%3E", ">"),
        ("/actors/good_0.>", "good_0.>"),
        ("/actors/good_0%00", "good_0"),
        ("/actors/nobody_0/executions", "nobody_0"),
        ("/actors/nobody_0/state", "nobody_0"),
        ("/actors/nobody_0/messages", "nobody_0"),
        ("/actors/nobody_0/workers", "nobody_0"),
        ("/actors/nobody_0/subscriptions", "nobody_0"),
        ("/actors/good_0/executions/good_0_exc_9", "good_0_exc_9"),
        ("/actors/good_0/executions/9", "9"),
        ("/actors/good_0/executions/good_0_exc_9/logs", "good_0_exc_9"),
        ("/actors/good_0/workers/good_0_wkr_9", "good_0_wkr_9"),
        ("/actors/good_0/workers/x", "x"),
        ("/nowhere", "/nowhere"),
        ("/", "/"),
        ("/actors/good_0/nothing", "nothing"),
        ("/actors/nobody_0/permissions", "nobody_0"),
        ("/tokens/none", "none"),
        ("/actors/good_0/nonces/none", "none"),
    ],
)
def test_what_is_not_there(api: Api, path: str, named: str) -> None:
    assert named in error_of(httpx.get(f"{api.url}{path}"), 404)["msg"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/actors/nobody_0/messages", {"message": "x"}),
        ("POST", "/actors/*/messages", {"message": "x"}),
        ("POST", "/actors/nobody_0/state", {"state": "x"}),
        ("POST", "/actors/nobody_0/workers", {"num": "1"}),
        ("POST", "/actors/nobody_0/subscriptions", {"event_pattern": ">"}),
        ("PUT", "/actors/nobody_0", {"image": "a"}),
        ("DELETE", "/actors/nobody_0", {}),
        ("DELETE", "/actors/nobody_0/workers/nobody_0_wkr_0", {}),
        ("DELETE", "/actors/good_0/workers/good_0_wkr_0", {}),
    ],
)
def test_a_command_on_what_is_not_there(
    api: Api, method: str, path: str, body: dict[str, str]
) -> None:
    error_of(httpx.request(method, f"{api.url}{path}", data=body), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/actors", {"GET", "HEAD", "POST"}),
        ("POST", "/actors/good_0", {"GET", "HEAD", "PUT", "DELETE"}),
        ("PATCH", "/actors/good_0", {"GET", "HEAD", "PUT", "DELETE"}),
        ("PUT", "/actors/good_0/messages", {"GET", "HEAD", "POST", "DELETE"}),
        ("OPTIONS", "/actors", {"GET", "HEAD", "POST"}),
        ("POST", "/healthz", {"GET", "HEAD"}),
    ],
)
def test_a_wrong_method(api: Api, method: str, path: str, allowed: set[str]) -> None:
    answer = httpx.request(method, f"{api.url}{path}")
    error_of(answer, 405)
    assert set(answer.headers["Allow"].split(", ")) == allowed


@pytest.mark.parametrize("path", ["//actors", "/actors/", "//actors//", "///actors"])
def test_slashes_more_than_needed(api: Api, path: str) -> None:
    assert result_of(httpx.get(f"{api.url}{path}"))


@pytest.mark.parametrize(
    ("query", "status", "named"),
    [
        ("MSG=x", 400, "MSG"),
        ("_abaco_x=1", 400, "_abaco_x"),
        ("=x", 400, "query string"),
        ("A=%00", 400, "A"),
        ("A%00=x", 400, "A"),
        ("A%3DB=x", 400, "A=B"),
        ("A=1&A=2", 400, "A"),
        ("A=%ff", 400, "UTF-8"),
    ],
)
def test_variables_that_cannot_be_set(api: Api, query: str, status: int, named: str) -> None:
    url = f"{api.url}/actors/good_0/messages?{query}"
    assert named in error_of(httpx.post(url, data={"message": "x"}), status)["msg"]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {}),
        (400, {"massage": "x"}),
        (400, {"message": "a\0b"}),
        (413, {"message": "x" * 131_068}),
        (413, {"message": "é" * 65_534}),
    ],
)
def test_a_bad_message(api: Api, status: int, body: dict[str, str]) -> None:
    answer = httpx.post(f"{api.url}/actors/good_0/messages", json=body)
    assert "message" in error_of(answer, status)["msg"]


def test_the_longest_message_is_accepted(api: Api) -> None:
    answer = httpx.post(f"{api.url}/actors/good_0/messages", data={"message": "\1" * 131_067})
    assert len(result_of(answer)["msg"]) == 131_067


@pytest.mark.parametrize(
    ("query", "named"),
    [("limit=0", "limit"), ("limit=x", "limit"), ("offset=-1", "offset"), ("limti=5", "limti")],
)
@pytest.mark.parametrize("path", ["/actors", "/actors/good_0/executions"])
def test_a_bad_page(api: Api, path: str, query: str, named: str) -> None:
    assert named in error_of(httpx.get(f"{api.url}{path}?{query}"), 400)["msg"]


def test_a_bad_abaco_after(api: Api) -> None:
    for value in ("x", "-1", "1.5", "9" * 40):
        answer = httpx.get(f"{api.url}/actors", headers={"Abaco-After": value})
        assert "Abaco-After" in error_of(answer, 400)["msg"]


@pytest.mark.parametrize("size", [1024 * 1024 + 1, 5 * 1024 * 1024])
def test_a_body_over_the_limit(api: Api, size: int) -> None:
    body = json.dumps({**GOOD, "description": "x" * size}).encode()
    error_of(httpx.post(f"{api.url}/actors", content=body, headers=JSON), 413)
    chunks = (body[at : at + 65_536] for at in range(0, len(body), 65_536))
    error_of(httpx.post(f"{api.url}/actors", content=chunks, headers=JSON), 413)


def raw_answer(api: Api, request: bytes) -> tuple[int, Any]:
    """The answer to bytes that no client library would send."""
    with socket.create_connection((LOOPBACK, api.port), timeout=LIMIT_SECONDS) as connection:
        connection.sendall(request)
        answer = b""
        while b'"version"' not in answer:
            part = connection.recv(65_536)
            assert part, answer
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (200, b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n"),
        (431, b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000 + b"\r\n\r\n"),
        (404, b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"),
        (400, b"\x00\x01nonsense\r\n\r\n"),
        (400, b"FETCH /actors HTTP/1.1\r\nHost: x\r\n\r\n"),
        (400, b"GET /actors/\xff HTTP/1.1\r\nHost: x\r\n\r\n"),
        (400, b"POST /actors HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"),
        (
            413,
            b"POST /actors HTTP/1.1\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n",
        ),
        (
            415,
            b"POST /actors HTTP/1.1\r\nHost: x\r\nContent-Type: \xff\r\nContent-Length: 1\r\n\r\nx",
        ),
    ],
)
def test_bytes_no_library_would_send(api: Api, status: int, request_: bytes) -> None:
    found, body = raw_answer(api, request_)
    assert found == status
    assert {"status", "msg", "result", "version"} <= set(body)


def test_a_client_that_goes_away_in_the_middle_leaves_no_trace(api: Api) -> None:
    with socket.create_connection((LOOPBACK, api.port), timeout=LIMIT_SECONDS) as connection:
        connection.sendall(b"POST /actors HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nhalf")
    assert httpx.get(f"{api.url}/healthz").status_code == 200
