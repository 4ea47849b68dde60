"""JSON schemas of the types that the api describes."""

import inspect
from collections.abc import Sequence
from typing import Any

import msgspec


def schema_components(
    types: Sequence[Any], template: str
) -> tuple[tuple[dict[str, Any], ...], dict[str, Any]]:
    """A reference for each type, and the schemas they lead to, by name.

    A description is the docstring of its type without indentation: Python 3.13 removes it when it
    compiles, older versions do not, and the schemas are the same on all of them.
    """
    references, schemas = msgspec.json.schema_components(types, ref_template=template)
    for schema in schemas.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    return references, schemas
