"""What happens to a work item after an error: retry it, report its failure, or ignore the error."""

from enum import StrEnum

from abaco_proto.errors import Conflict, Unavailable
from abaco_worker.domain.engine_errors import EngineFault

MAX_FAULT_ATTEMPTS = 5
MAX_PAUSE_SECONDS = 10.0


class Disposition(StrEnum):
    """What to do with a work item after an error."""

    DONE = "done"
    RETRY = "retry"
    FAIL = "fail"


def disposition(error: Exception, attempts: int) -> Disposition:
    """Return what to do after ``attempts`` attempts, the last of which raised ``error``.

    An unavailable service is retried without limit. A fault of the engine or of the host, such as
    a full disk, may pass: it is retried a few times. Any other error would repeat, so it is
    reported; the scheduler decides about another attempt.
    """
    match error:
        case Conflict():
            return Disposition.DONE
        case Unavailable():
            return Disposition.RETRY
        case EngineFault() | OSError() if attempts < MAX_FAULT_ATTEMPTS:
            return Disposition.RETRY
    return Disposition.FAIL


def back_off(attempts: int) -> float:
    """Return the seconds before the next attempt: 0.5, doubled each time, at most 10."""
    return min(0.5 * 2.0 ** min(attempts - 1, 10), MAX_PAUSE_SECONDS)
