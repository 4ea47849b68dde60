"""The scheduler's clock: the wall clock at its start plus the monotonic time since.

Theory: the time of an event is read from its appender's clock, which may be an hour off, and any
wall clock may be set while the scheduler runs. A pause computed from such times could be an hour
too long, or missing. So pauses start when the scheduler receives the event, by this clock. For
events from before the scheduler's start only the appender's time is known: it is used, but never
as later than now.
"""

from datetime import datetime, timedelta

from msgspec.structs import replace

from abaco_proto import events as ev
from abaco_proto.envelope import Recorded


class EventClock:
    """Converts readings of a monotonic clock, in seconds, to times."""

    def __init__(self, wall: datetime, monotonic: float) -> None:
        """Start with readings of both clocks, taken at the same moment."""
        self._wall = wall
        self._monotonic = monotonic

    def at(self, monotonic: float) -> datetime:
        """Return the time at a reading of the monotonic clock."""
        return self._wall + timedelta(seconds=monotonic - self._monotonic)

    def corrected(self, recorded: Recorded, monotonic: float, *, live: bool) -> Recorded:
        """Return the event with the time that pauses are computed from.

        ``monotonic`` is when the event was received. ``live`` means that it was appended just
        now; otherwise it is from before the start. A message keeps its time: no pause starts
        with it, and its trace begins there.
        """
        if isinstance(recorded.event, ev.MessageReceived):
            return recorded
        now = self.at(monotonic)
        return recorded if recorded.time <= now and not live else replace(recorded, time=now)
