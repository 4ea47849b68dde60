"""Parsers of what clients send: twice the input costs at most 2.5 times the processor time."""

import gc
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from starlette.requests import Request

from abaco_api.commands import parse
from abaco_api.domain import event_pattern, messages
from abaco_api.domain.actor_definition import Defaults
from abaco_api.domain.image_name import is_image
from abaco_api.domain.wildcard import wildcard_matches
from abaco_api.http import parameters
from abaco_api.http.content_coding import decoded
from abaco_api.http.content_negotiation import accept
from abaco_api.http.operation_endpoint import checked_key
from abaco_api.http.parameters import (
    Parameters,
    decode_json,
    execution_ordinal,
    multipart_fields,
    text_parameters,
    whole_number,
)
from abaco_api.streams.domain import selection
from abaco_api.streams.domain.output_offset import parse_offset
from abaco_api.streams.events import event_query
from abaco_proto import names
from abaco_proto.errors import AbacoError

MOST = 2.5
DOUBLINGS = 3
"""Over more than one, what is quadratic stands out from noise; inputs stay small enough for the
caches of a processor, beyond which each byte costs more whatever the code.
"""

RUNS = 3
ROUNDS = 10
LEAST_SECONDS = 0.0001
LEAST_TICKS = 20
"""A measurement is at least this many steps of the clock: they may be as long as 4 ms each."""

FORM = "multipart/form-data; boundary=x"

Work = Callable[[], object]


@contextmanager
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def clock_step() -> float:
    """The largest step of the thread's clock that was seen, in seconds: not all are equal."""
    steps = []
    for _ in range(5):
        began = now = time.thread_time()
        while now == began:
            now = time.thread_time()
        steps.append(now - began)
    return max(steps)


def seconds(work: Work, times: int) -> float:
    """The least of some runs: what else the machine does can only add to it."""
    found = []
    for _ in range(RUNS):
        began = time.thread_time()
        for _ in range(times):
            with suppress(AbacoError):
                work()
        found.append(time.thread_time() - began)
    return min(found)


def growth(make: Callable[[int], Work], size: int) -> float:
    """How much more twice the input costs, at best: a machine that is busy elsewhere adds to it."""
    least = float("inf")
    with without_collector():
        one, more = make(size), make(2**DOUBLINGS * size)
        least_seconds = max(LEAST_SECONDS, LEAST_TICKS * clock_step())
        times = 1
        while seconds(one, times) < least_seconds:
            times *= 2
        for _ in range(ROUNDS):
            ratio = seconds(more, times) / seconds(one, times)
            least = min(least, ratio ** (1 / DOUBLINGS))
            if least <= MOST:
                break
    return least


# -- bodies --------------------------------------------------------------------------------------


def of_json(make: Callable[[int], str]) -> Callable[[int], Work]:
    def prepare(size: int) -> Work:
        raw = make(size).encode()
        return lambda: parameters._json_object(raw)

    return prepare


def listed(items: str, *more: str) -> str:
    return "{" + ",".join([items, *more]) + "}"


def keys(size: int) -> str:
    return ",".join(f'"{n}":{n}' for n in range(size))


JSON: dict[str, Callable[[int], str]] = {
    "the last key doubled": lambda n: listed(keys(n), f'"{n - 1}":1'),
    "all keys doubled": lambda n: listed(keys(n), keys(n)),
    "keys all distinct": lambda n: listed(keys(n)),
    "one key again and again": lambda n: listed(",".join(['"a":1'] * n)),
    "a doubled key further in": lambda n: listed('"message":' + listed(keys(n), f'"{n - 1}":1')),
    "objects in a list": lambda n: '{"message":[' + ",".join(['{"a":1}'] * n) + "]}",
    "lists in lists": lambda n: '{"message":[' + ",".join(["[" * 60 + "]" * 60] * (n // 10)) + "]}",
    "brackets that never close": lambda n: '{"message":' + "[" * n * 10,
    "one long text": lambda n: '{"message":"' + "x" * n * 20 + '"}',
    "escapes": lambda n: '{"message":"' + "\\u0001" * n * 5 + '"}',
    "escaped backslashes": lambda n: '{"state":"' + "\\\\" * n * 5 + '"}',
    "one long number": lambda n: '{"message":' + "9" * n * 10 + "}",
    "one long fraction": lambda n: '{"message":0.' + "9" * n * 10 + "}",
    "white space": lambda n: '{"message"' + " " * n * 20 + ":1}",
}


def multipart(size: int, head: bytes = b"", value: bytes = b"", name: bytes = b"%d") -> bytes:
    disposition = b"--x\r\nContent-Disposition: form-data; name="
    parts = [
        disposition + b'"' + (name % n if b"%" in name else name) + b'"' + head + value + b"\r\n"
        for n in range(size)
    ]
    return b"".join(parts) + b"--x--\r\n"


END = b"\r\n\r\n"
MULTIPART: dict[str, Callable[[int], bytes]] = {
    "many parts": lambda n: multipart(n, END),
    "one name doubled": lambda n: multipart(n, END)[:-7] + multipart(1, END),
    "one name again and again": lambda n: multipart(n, END, name=b"a"),
    "many files": lambda n: multipart(n, b'; filename="f"' + END),
    "almost the boundary": lambda n: multipart(1, END, b"\r\n--x!" * n * 10),
    "the beginning of the boundary": lambda n: multipart(1, END, b"\r\n--" * n * 10),
    "returns": lambda n: multipart(1, END, b"\r" * n * 50),
    "before the first part": lambda n: b"\r\n-" * n * 50,
    "in base 64": lambda n: multipart(
        1, b"\r\nContent-Transfer-Encoding: base64" + END, b"YQ==" * n * 10
    ),
    "quoted printable": lambda n: multipart(
        1, b"\r\nContent-Transfer-Encoding: quoted-printable" + END, b"=41=\r\n" * n * 10
    ),
    "a long head": lambda n: multipart(1, b"; a" * n * 10 + END),
}


def of_multipart(make: Callable[[int], bytes]) -> Callable[[int], Work]:
    def prepare(size: int) -> Work:
        raw = make(size)
        return lambda: parameters.unique(multipart_fields(FORM, raw))

    return prepare


ENCODED: dict[str, Callable[[int], str]] = {
    "names all distinct": lambda n: "&".join(f"{k}=1" for k in range(n)),
    "the last name doubled": lambda n: "&".join(f"{k}=1" for k in (*range(n), n - 1)),
    "nothing but separators": lambda n: "&" * n * 20,
    "escapes": lambda n: "a=" + "%41" * n * 10,
    "escapes of more than one byte": lambda n: "a=" + "%E2%82%AC" * n * 5,
    "plus signs": lambda n: "a=" + "+" * n * 20,
    "half an escape": lambda n: "a=" + "%" * n * 20,
}


def of_urlencoded(make: Callable[[int], str]) -> Callable[[int], Work]:
    def prepare(size: int) -> Work:
        raw = make(size).encode()
        return lambda: text_parameters(raw)

    return prepare


@pytest.mark.parametrize("name", JSON)
def test_json(name: str) -> None:
    assert growth(of_json(JSON[name]), 300) <= MOST


@pytest.mark.parametrize("name", MULTIPART)
def test_multipart_forms(name: str) -> None:
    assert growth(of_multipart(MULTIPART[name]), 120) <= MOST


@pytest.mark.parametrize("name", ENCODED)
def test_forms_and_query_strings(name: str) -> None:
    assert growth(of_urlencoded(ENCODED[name]), 120) <= MOST


def test_names_that_are_there_more_than_once() -> None:
    def prepare(size: int) -> Work:
        pairs = [(str(n), "") for n in (*range(size), size - 1)]
        return lambda: parameters.unique(pairs)

    assert growth(prepare, 300) <= MOST


# -- texts ---------------------------------------------------------------------------------------

DEFAULTS = Defaults(init_count=2, max_workers=4)


def registered(**values: object) -> Work:
    said = Parameters({"image": "a", "name": "a", **values}, form=False)
    return lambda: parse.register(said, DEFAULTS)


def filled(**values: str) -> Work:
    said = Parameters({"image": "a", "name": "a", **values}, form=True)
    return lambda: parse.register(said, DEFAULTS)


def subscribed(text: str) -> Work:
    said = Parameters({"event_pattern": text}, form=True)
    return lambda: parse.subscribe("foo_0", said)


def with_headers(*headers: tuple[str, str]) -> Request:
    raw = [(name.encode(), value.encode()) for name, value in headers]
    return Request({"type": "http", "headers": raw})


TEXTS: dict[str, Callable[[int], Work]] = {
    "stars": lambda n: lambda: wildcard_matches("*a" * n + "b", "a" * n * 2),
    "stars that fit": lambda n: lambda: wildcard_matches("*a" * n, "a" * n * 2),
    "stars alone": lambda n: lambda: wildcard_matches("*" * n, "a" * n),
    "a pattern of stars": lambda n: subscribed("*" * n + ".execution.finished"),
    "a pattern of parts": lambda n: subscribed("a." * n + ">"),
    "what a pattern means": lambda n: (
        lambda: event_pattern.why_unmatchable("*a" * n + "*." + "*e" * n + ".*")
    ),
    "what a pattern matches": lambda n: (
        lambda: event_pattern.matches.__wrapped__(
            "*a" * n + "*.execution.*", "a" * n + "_0", "execution.finished"
        )
    ),
    "a type": lambda n: lambda: event_query._type("*e" * n + "*"),
    "a type for SQL": lambda n: lambda: selection.like("*%_\\" * n),
    "a principal": lambda n: lambda: event_query._principal(":é*%" * n),
    "an actor": lambda n: lambda: event_query._actor("_host-" + "a-" * n),
    "an actor's id": lambda n: lambda: names.is_actor_id("a_" * n + "_0"),
    "an execution's id": lambda n: lambda: execution_ordinal("foo_0", "foo_0_exc_" + "1" * n),
    "a time": lambda n: lambda: event_query.moment("since", "2026-01-02T03:04:05" + " 00:00" * n),
    "a number": lambda n: lambda: whole_number("limit", "9" * n, least=0, most=9),
    "a number in a form": lambda n: filled(min_workers="9" * n),
    "a size": lambda n: filled(mem_limit="9" * n + "m"),
    "a fraction in a form": lambda n: filled(max_cpus="0." + "9" * n),
    "an image": lambda n: lambda: is_image("a-" * n),
    "an image of 255": lambda _: lambda: is_image("a-" * 126 + "/"),
    "a description": lambda n: registered(description="a" * n),
    "a place": lambda n: lambda: parse_offset("1" * n + ":" + "2" * n, 1),
    "a key": lambda n: lambda: checked_key(["a" * n]),
    "an environment": lambda n: registered(
        default_environment={str(k): "" for k in range(n // 100)}
    ),
    "an environment in a form": lambda n: filled(
        default_environment=json.dumps({str(k): "" for k in range(n // 100)})
    ),
    "a string of the environment": lambda n: (
        lambda: messages.check_environment("a", {"a": "b" * n})
    ),
    "media ranges": lambda n: lambda: accept(["a/b;q=0.5," * n]).prefers("a/b", "b/c"),
    "parameters of a range": lambda n: lambda: accept(["a/b" + ";a=b" * n]).prefers("a/b", "b/c"),
    "codings": lambda n: lambda: decoded(b"a", ["gzip," * n], 1),
    "headers": lambda n: (
        lambda: with_headers(*((f"x{k}", "") for k in range(n // 100))).headers.getlist(
            "idempotency-key"
        )
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts(name: str) -> None:
    assert growth(TEXTS[name], 2_000) <= MOST


def test_a_value_that_is_nested() -> None:
    """In an environment in a form there is JSON, too."""

    def prepare(size: int) -> Work:
        text = "[" + ",".join(["{}"] * size) + "]"
        return lambda: decode_json(text, "default_environment")

    assert growth(prepare, 300) <= MOST


def test_a_quadratic_parser_would_be_found() -> None:
    def prepare(size: int) -> Work:
        text = "a" * size
        return lambda: re.match("a*a*b", text)

    assert growth(prepare, 100) > MOST
