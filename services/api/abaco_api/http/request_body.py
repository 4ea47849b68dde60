"""The parameters of a request: from its query string, and from a body in JSON or as a form."""

import asyncio
import io
import json
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from python_multipart import parse_form
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File
from starlette.requests import Request

from abaco_api.api_errors import BadParameter, UnsupportedBody
from abaco_api.http.content_coding import decoded
from abaco_proto.errors import Malformed

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
