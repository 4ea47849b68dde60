"""Multipart forms: their text fields."""

import io
import logging

from python_multipart import parse_form
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File

from abaco_api.http.http_errors import BadParameter
from abaco_proto.errors import Malformed

MAX_FIELDS = 1000

logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
"""A client's mistakes are reported to the client, not in our log."""


def fields(content_type: str, raw: bytes) -> list[tuple[str, str]]:
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
    return [(_text(name), _text(value)) for name, value in found]


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Malformed("the form is not UTF-8") from None
