"""nats-py's client, with one thing done faster: the headers of what it reads.

Each message has six headers, always the same ones. nats-py checks their names character by
character, which is a third of the time it takes to read an event; here a name is checked when it
is first seen. The method is a private one: should it go, its place is simply not taken any more,
and a test that compares the two says so.
"""

from functools import lru_cache

from nats.aio.client import Client

MOST_NAMES = 256


class QuickClient(Client):
    """Reads headers to the same dictionary as its parent."""

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        found: dict[str, str] = {}
        for line in raw.split(b"\r\n"):
            name, colon, value = line.partition(b":")
            known = _name(name) if colon else None
            if known is not None:
                found[known] = value.strip().decode("utf-8", "replace")
        return found


@lru_cache(maxsize=MOST_NAMES)
def _name(raw: bytes) -> str | None:
    """A header's name; None for what is none."""
    name = raw.strip()
    if not name.isascii():
        return None
    text = name.decode("ascii")
    return None if any(character.isspace() for character in text) else text
