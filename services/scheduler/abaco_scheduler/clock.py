"""The scheduler's own time, which nobody can set: the wall's at its start, and what passed since.

Theory: an event carries its appender's clock, which may be an hour off, and any clock on a wall may
be stepped. A pause that is reckoned from one such time to another is an hour too long, or none at
all. So pauses are reckoned from when the scheduler heard of an event, by this clock. Of history it
has heard nothing: there the appender's time is taken, but never as later than now.
"""

from datetime import datetime, timedelta

from msgspec.structs import replace

from abaco_proto import events as ev
from abaco_proto.envelope import Recorded


class Clock:
    """Times from readings of a monotonic clock, in seconds."""

    def __init__(self, wall: datetime, monotonic: float) -> None:
        """Begin at a moment that both clocks were read."""
        self._wall = wall
        self._monotonic = monotonic

    def at(self, monotonic: float) -> datetime:
        """The time at a reading."""
        return self._wall + timedelta(seconds=monotonic - self._monotonic)

    def heard(self, recorded: Recorded, monotonic: float, *, live: bool) -> Recorded:
        """The event with the time that counts here; ``live``: it has just been appended.

        No pause begins with a message: its time is where its trace begins, and stays.
        """
        if isinstance(recorded.event, ev.MessageReceived):
            return recorded
        now = self.at(monotonic)
        return recorded if recorded.time <= now and not live else replace(recorded, time=now)
