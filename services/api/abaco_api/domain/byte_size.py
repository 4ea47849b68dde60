"""Sizes as people write them: ``512m``. The units are powers of 1024, as Docker has them."""

import re

MEBIBYTE = 1024 * 1024
PATTERN = r"^[0-9]{1,15}[bkmgBKMG]?$"

_UNITS = {"": 1, "b": 1, "k": 1024, "m": MEBIBYTE, "g": 1024 * MEBIBYTE}
_SIZE = re.compile(r"([0-9]{1,15})([bkmg]?)", re.ASCII)


def size(text: str) -> int | None:
    """The bytes that a text stands for; None when it is no size."""
    found = _SIZE.fullmatch(text.lower())
    return None if found is None else int(found[1]) * _UNITS[found[2]]
