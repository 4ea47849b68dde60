"""Sizes in bytes with a unit, such as ``512m``. The units are powers of 1024, as in Docker."""

import re

MEBIBYTE = 1024 * 1024
PATTERN = r"^[0-9]{1,15}[bkmgBKMG]?$"

_UNITS = {"": 1, "b": 1, "k": 1024, "m": MEBIBYTE, "g": 1024 * MEBIBYTE}
_SIZE = re.compile(r"([0-9]{1,15})([bkmg]?)", re.ASCII)


def parse_size(text: str) -> int | None:
    """The number of bytes in a text; None if it is malformed."""
    found = _SIZE.fullmatch(text.lower())
    return None if found is None else int(found[1]) * _UNITS[found[2]]
