"""SQL statements by name: ``queries.sql`` has each under a line ``-- name: <name>``."""

import re
from pathlib import Path

_PART = re.compile(r"^-- name: (\w+)\n(.*?)(?=^-- name: |\Z)", re.MULTILINE | re.DOTALL)


def parse(text: str) -> dict[str, str]:
    """Return the statements by name, in the order of the text."""
    return {name: sql.strip().rstrip(";") for name, sql in _PART.findall(text)}


QUERIES = parse(Path(__file__).with_name("queries.sql").read_text(encoding="utf-8"))
