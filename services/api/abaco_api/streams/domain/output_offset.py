"""Offsets in the output of an execution: the attempt, and the number of its bytes before."""

import re

import msgspec

_OFFSET = re.compile(r"(?:([0-9]{1,9}):)?([0-9]{1,18})", re.ASCII)


class OutputOffset(msgspec.Struct, frozen=True, order=True):
    """An offset in the output; it counts the bytes of its attempt."""

    attempt: int = 0
    offset: int = 0

    def __str__(self) -> str:
        """The text that a reader gets, and resumes with: ``1:4096``."""
        return f"{self.attempt}:{self.offset}"


def parse_offset(text: str, attempt: int) -> OutputOffset | None:
    """The offset in a text; a number alone is one of ``attempt``. None for any other text."""
    found = _OFFSET.fullmatch(text)
    if found is None:
        return None
    return OutputOffset(attempt if found[1] is None else int(found[1]), int(found[2]))
