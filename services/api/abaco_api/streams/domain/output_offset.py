"""Places in the output of an execution: which attempt, and how many of its bytes lie before."""

import re

import msgspec

_PLACE = re.compile(r"(?:([0-9]{1,9}):)?([0-9]{1,18})", re.ASCII)


class Place(msgspec.Struct, frozen=True, order=True):
    """A place in the output; offsets count the bytes of their attempt."""

    attempt: int = 0
    offset: int = 0

    def __str__(self) -> str:
        """As it is told to a reader, who may come back with it: ``1:4096``."""
        return f"{self.attempt}:{self.offset}"


def place(text: str, attempt: int) -> Place | None:
    """The place in a text, where a number alone is an offset of ``attempt``; None for neither."""
    found = _PLACE.fullmatch(text)
    if found is None:
        return None
    return Place(attempt if found[1] is None else int(found[1]), int(found[2]))
