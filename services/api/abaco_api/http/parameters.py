"""The parameters of a request: from its path, its query string, and a body in JSON or as a form.

Each error names the parameter and what was expected.
"""

import asyncio
import io
import json
import logging
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from python_multipart import parse_form
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File
from starlette.requests import Request

from abaco_api.api_errors import BadParameter, UnsupportedBody
from abaco_api.http.content_coding import decoded
from abaco_api.streams.domain.output_offset import OutputOffset, parse_offset
from abaco_proto import names
from abaco_proto.errors import Malformed, Unknown

T = TypeVar("T", bound=msgspec.Struct)

JSON = "application/json"
URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
KINDS = (JSON, URLENCODED, MULTIPART)

MAX_FIELDS = 1000

MAX_DEPTH = 64
"""Deeper JSON is refused: every reader of the log must be able to decode it."""

logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
"""A client's mistakes are reported to the client, not in our log."""

BODY = "abaco.body"
"""The key of the complete body in the scope of a request."""

PARAMETERS = "abaco.parameters"
"""The key of the decoded parameters in the scope of a request."""

LARGE_BYTES = 64 * 1024
_large = ThreadPoolExecutor(1, "large-body")
"""One large body at a time: threads that only compute slow each other down."""


class Parameters(msgspec.Struct, frozen=True):
    """The parameters in a body.

    In a form every value is a text, converted later to the type of its parameter. In JSON every
    value is its text as it was sent (``Raw``), so numbers keep all their digits.
    """

    values: dict[str, Any]
    form: bool


async def read_parameters(request: Request, limit: int) -> Parameters:
    """The parameters in the body of a request; none when there is no body.

    They are decoded once and kept in the scope. ``limit`` is in bytes, without any coding.

    Raises:
        BodyTooLarge: the body is longer.
        UnsupportedBody: its content type is not one of ``KINDS``, or its coding is unknown.
        Malformed: it does not conform to its content type or coding.
    """
    parameters: Parameters | None = request.scope.get(PARAMETERS)
    if parameters is None:
        raw: bytes = request.scope[BODY]
        codings = request.headers.getlist("content-encoding")
        if raw and codings:
            raw = decoded(raw, codings, limit)
        content_type = request.headers.get("content-type", "")
        if len(raw) > LARGE_BYTES:  # decoding takes tens of milliseconds; other requests go on
            loop = asyncio.get_running_loop()
            parameters = await loop.run_in_executor(_large, _parameters, content_type, raw)
        else:
            parameters = _parameters(content_type, raw)
        request.scope[PARAMETERS] = parameters
    return parameters


def _parameters(content_type: str, raw: bytes) -> Parameters:
    if not raw:
        return Parameters({}, form=False)
    match content_type.partition(";")[0].strip().lower():
        case "application/json":
            return Parameters(_json_object(raw), form=False)
        case "application/x-www-form-urlencoded":
            return Parameters(text_parameters(raw), form=True)
        case "multipart/form-data":
            return Parameters(unique(multipart_fields(content_type, raw)), form=True)
        case kind:
            raise UnsupportedBody(
                f"Content-Type: expected one of {', '.join(KINDS)}, got {kind[:100]!r}"
            )


def query_parameters(request: Request) -> dict[str, str]:
    """The parameters of the query string. Each name may occur once."""
    return text_parameters(request.scope["query_string"])


def text_parameters(raw: bytes) -> dict[str, str]:
    """The parameters in a URL-encoded text. Each name may occur once."""
    if not raw:
        return {}
    try:
        pairs = parse_qsl(
            raw.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS
        )
    except UnicodeDecodeError:
        raise Malformed("the parameters are not UTF-8") from None
    except ValueError:
        raise Malformed(f"more than {MAX_FIELDS} parameters") from None
    return unique(pairs)


def multipart_fields(content_type: str, raw: bytes) -> list[tuple[str, str]]:
    """Names and texts of a form's fields, in order. Raises ``BadParameter`` for a file."""
    found: list[tuple[bytes, bytes]] = []

    def on_field(field: Field) -> None:
        if len(found) == MAX_FIELDS:
            raise Malformed(f"more than {MAX_FIELDS} parameters")
        found.append((field.field_name or b"", field.value or b""))

    def on_file(file: File) -> None:
        file.close()
        name = (file.field_name or b"").decode(errors="replace")[:100]
        raise BadParameter(name, "expected text, got a file")

    headers = {"Content-Type": content_type.encode("latin-1")}
    try:
        parse_form(headers, io.BytesIO(raw), on_field, on_file)
    except (FormParserError, ValueError) as error:
        raise Malformed(f"the body is not a multipart form: {error}") from None
    return [(_decoded_field(name), _decoded_field(value)) for name, value in found]


def _decoded_field(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Malformed("the form is not UTF-8") from None


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs as a dictionary. Raises ``BadParameter`` for a repeated name."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise BadParameter(_repeated_name(pairs)[:100], "is there more than once")
    return values


def _repeated_name(pairs: list[tuple[str, Any]]) -> str:
    """The first name that occurs for the second time."""
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            return name
        seen.add(name)
    raise AssertionError


def decode_json(raw: bytes | str, what: str) -> Any:
    """The JSON value in ``raw``. Encoding, depth, repeated keys and numbers are checked."""
    _check_json(raw, what)
    try:
        return msgspec.json.decode(raw)
    except ValueError as error:
        raise Malformed(f"{what} is not JSON: {error}") from None


def _json_object(raw: bytes) -> dict[str, msgspec.Raw]:
    """The texts of a JSON object's values, each as it was sent."""
    _check_json(raw, "the body")
    try:
        return msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError as error:
        got = str(error).rpartition("got ")[2].strip("`")
        got = _NAMES.get(got, "null" if got == "null" else "a number")
        raise Malformed(f"the body: expected a JSON object, got {got}") from None
    except ValueError as error:
        raise Malformed(f"the body is not JSON: {error}") from None


_NAMES = {"array": "a list", "str": "a string", "bool": "a boolean"}


def _check_json(raw: bytes | str, what: str) -> None:
    """Refuse JSON that other decoders read differently or not at all."""
    try:
        text = raw if isinstance(raw, str) else raw.decode()
        value = json.loads(text, object_pairs_hook=unique, parse_int=len, parse_float=len)
    except RecursionError:
        raise Malformed(f"{what} is nested too deeply") from None
    except UnicodeError:
        raise Malformed(f"{what} is not UTF-8") from None
    except ValueError as error:
        raise Malformed(f"{what} is not JSON: {error}") from None
    if text.count("[") + text.count("{") > MAX_DEPTH and _deeper_than(value, MAX_DEPTH):
        raise Malformed(f"{what} is nested too deeply: at most {MAX_DEPTH} levels")


def _deeper_than(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth + 1):
        level = [v for item in level for v in _children(item)]
        if not level:
            return False
    return True


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


# -- from a body to a struct -----------------------------------------------------------------------

WHOLE_NUMBERS = (
    *("min_workers", "max_workers", "num"),
    *("mem_limit", "max_processes", "max_log_bytes", "max_disk_bytes", "log_ex"),
)
KEPT_AS_SENT = ("message",)


def convert(parameters: Parameters, kind: type[T]) -> T:
    """The parameters in a body as a struct. Raises ``BadParameter``."""
    known = kind.__struct_fields__
    values = {
        name: _value(name, value) if name in known else None
        for name, value in parameters.values.items()
    }
    try:
        return msgspec.convert(values, kind, strict=not parameters.form)
    except msgspec.ValidationError as error:
        raise _named(str(error), kind) from None


def _value(name: str, value: Any) -> Any:
    """The decoded value of a parameter; a message that is no JSON string is kept as it was sent."""
    if isinstance(value, msgspec.Raw):
        if name in KEPT_AS_SENT and not bytes(value).startswith(b'"'):
            return value
        try:
            value = msgspec.json.decode(value)
        except ValueError as error:
            raise BadParameter(name, f"cannot be read: {error}") from None
    if name in WHOLE_NUMBERS and isinstance(value, float) and value.is_integer():
        return int(value)  # in JSON, 3.0 is the number 3
    return value


def _named(text: str, kind: type[msgspec.Struct]) -> Malformed:
    """The error that begins with the parameter's name, made from msgspec's message."""
    if found := re.fullmatch(r"Object missing required field `(.*)`", text, re.DOTALL):
        return BadParameter(found[1], "is missing")
    if found := re.fullmatch(r"Object contains unknown field `(.*)`", text, re.DOTALL):
        known = ", ".join(kind.__struct_fields__)
        return BadParameter(found[1][:100] or "''", f"is not a parameter here; known: {known}")
    what, _, where = text.partition(" - at `$.")
    name = re.split(r"[.\[`]", where)[0]
    return BadParameter(name or "the body", what[:1].lower() + what[1:])


def json_text(value: Any) -> str:
    """The JSON text of a value; a value from JSON keeps the text that was sent."""
    return (bytes(value) if isinstance(value, msgspec.Raw) else msgspec.json.encode(value)).decode()


# -- names in paths and numbers in queries ---------------------------------------------------------

MAX_EXECUTION_ID = 128


def checked_actor_id(text: str) -> str:
    """An actor id from a path. Raises ``Unknown`` for a text that cannot be one."""
    if not names.is_actor_id(text):
        raise Unknown(f"actor_id: there is no actor {text[:100]!r}")
    return text


def execution_ordinal(actor_id: str, text: str) -> int:
    """The ordinal in an execution id from a path."""
    # names.execution_ordinal caches its arguments, so it gets no long text.
    ordinal = names.execution_ordinal(text, actor_id) if len(text) <= MAX_EXECUTION_ID else None
    if ordinal is None:
        raise Unknown(f"execution_id: {actor_id} has no execution {text[:100]!r}")
    return ordinal


def checked_worker_id(actor_id: str, text: str) -> str:
    """A worker id from a path."""
    if names.worker_number(text, actor_id) is None:
        raise Unknown(f"worker_id: {actor_id} has no worker {text[:100]!r}")
    return text


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a long list that a client asks for."""

    limit: int
    offset: int


MAX_LIMIT = 10_000
MAX_OFFSET = 10**15
SWITCHES = {"true": True, "false": False, "1": True, "0": False}


def parse_page(query: dict[str, str], *known: str, default: int) -> Page:
    """``limit`` and ``offset`` of a query string; other parameters must be ``known``."""
    nothing_else(query, "limit", "offset", *known)
    return Page(
        limit=whole_number("limit", query.get("limit", str(default)), least=1, most=MAX_LIMIT),
        offset=whole_number("offset", query.get("offset", "0"), least=0, most=MAX_OFFSET),
    )


def nothing_else(query: dict[str, str], *known: str) -> None:
    """Refuse unknown parameters, so that a misspelt one is not ignored."""
    for name in query:
        if name not in known:
            what = f"is not a parameter here; known: {', '.join(known) or 'none'}"
            raise BadParameter(name[:100] or "the query string", what)


def whole_number(name: str, text: str, *, least: int, most: int) -> int:
    """A number in a query string or a header."""
    if re.fullmatch("[0-9]{1,18}", text) is None or not least <= int(text) <= most:
        raise BadParameter(name, f"expected a whole number from {least} to {most}")
    return int(text)


def flag(name: str, query: dict[str, str]) -> bool | None:
    """A boolean in a query string; None if it is absent."""
    if name not in query:
        return None
    if query[name] not in SWITCHES:
        raise BadParameter(name, f"expected one of {', '.join(SWITCHES)}")
    return SWITCHES[query[name]]


def resumed(text: str | None, attempt: int) -> OutputOffset:
    """The output offset to resume from; without ``Last-Event-ID`` the beginning of an attempt."""
    found = OutputOffset(attempt) if text is None else parse_offset(text, attempt)
    if found is None:
        raise BadParameter("Last-Event-ID", "expected <attempt>:<offset>, or an offset alone")
    return found
