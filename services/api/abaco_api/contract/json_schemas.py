"""JSON schemas of the types in the OpenAPI and AsyncAPI descriptions."""

import inspect
import re
from collections.abc import Sequence
from typing import Any

import msgspec

MODULE = re.compile(rb"abaco_[a-z]+(?:\.[a-z_]+)+\.")
"""The module in msgspec's name of a generic type. Clients are generated with these names, and a
module may move."""


def schema_components(
    types: Sequence[Any], template: str
) -> tuple[tuple[dict[str, Any], ...], dict[str, Any]]:
    """A reference per type, and all schemas by name.

    A description is the docstring of its type without indentation. Python 3.13 strips it at compile
    time, older versions do not; with this the schemas are the same on all versions.
    """
    named = msgspec.json.schema_components(types, ref_template=template)
    references, schemas = msgspec.json.decode(
        MODULE.sub(b"", msgspec.json.encode(named)), type=tuple[tuple[Any, ...], dict[str, Any]]
    )
    for schema in schemas.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    return references, schemas
