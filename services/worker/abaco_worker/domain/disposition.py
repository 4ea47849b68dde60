"""What an error does to the piece of work it came out of: this one function says it."""

from enum import StrEnum

from abaco_proto.errors import Conflict, Unavailable
from abaco_worker.domain.engine_errors import EngineFault

FAULT_TRIES = 5
LONGEST_PAUSE_SECONDS = 10.0


class Disposition(StrEnum):
    """Settle it, try it again after a while, or give up and say why."""

    DONE = "done"
    RETRY = "retry"
    PARK = "park"


def disposition(error: Exception, tries: int) -> Disposition:
    """What to do after ``tries`` tries, the last of which ended in ``error``.

    What is away comes back: that is waited for without end. A fault of the engine or of the host,
    such as a full disk, may be a passing one. All else would end in the same error again, or is
    for the scheduler to try anew.
    """
    match error:
        case Conflict():
            return Disposition.DONE
        case Unavailable():
            return Disposition.RETRY
        case EngineFault() | OSError() if tries < FAULT_TRIES:
            return Disposition.RETRY
    return Disposition.PARK


def back_off(tries: int) -> float:
    """Seconds before the next try: half a second, doubled each time, up to ten."""
    return min(0.5 * 2.0 ** min(tries - 1, 10), LONGEST_PAUSE_SECONDS)
