"""Numbers in JSON that are altered when they are decoded and encoded again."""

import re
from collections.abc import Iterable
from decimal import Decimal

EXACT_DIGITS = 17
"""This number of significant digits distinguishes every double from all others."""

_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
_NUMBER = re.compile(r"-?[0-9][-+.0-9eE]*")


def altered(before: str, after: str) -> str | None:
    """The first number that differs between a JSON text and its re-encoded form, or None.

    A number with at most ``EXACT_DIGITS`` digits is the same if it is the same double.
    """
    pairs = zip(_numbers(before), _numbers(after), strict=True)
    return next((one for one, other in pairs if not _same(one, other)), None)


def _numbers(text: str) -> Iterable[str]:
    return _NUMBER.findall(_STRING.sub("", text))


def _same(one: str, other: str) -> bool:
    if one == other:
        return True
    digits = re.split("[eE]", one)[0].replace(".", "").lstrip("-0")
    return len(digits) <= EXACT_DIGITS or Decimal(one) == Decimal(other)
