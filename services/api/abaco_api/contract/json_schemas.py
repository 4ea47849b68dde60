"""JSON schemas of the types in the OpenAPI and AsyncAPI descriptions."""

import inspect
from collections.abc import Sequence
from typing import Any

import msgspec


def schema_components(
    types: Sequence[Any], template: str
) -> tuple[tuple[dict[str, Any], ...], dict[str, Any]]:
    """A reference per type, and all schemas by name.

    A description is the docstring of its type without indentation. Python 3.13 strips it at compile
    time, older versions do not; with this the schemas are the same on all versions.
    """
    references, schemas = msgspec.json.schema_components(types, ref_template=template)
    for schema in schemas.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    return references, schemas
