import pytest

from abaco_proto.errors import Conflict, Unavailable, Undecodable
from abaco_worker.domain.disposition import MAX_FAULT_ATTEMPTS, Disposition, back_off, disposition
from abaco_worker.domain.engine_errors import ContainerMissing, EngineFault, ImageRefused


@pytest.mark.parametrize(
    ("error", "tries", "expected"),
    [
        (Conflict(), 1, Disposition.DONE),
        (Unavailable(), 1, Disposition.RETRY),
        (Unavailable(), 1000, Disposition.RETRY),
        (EngineFault(), 1, Disposition.RETRY),
        (EngineFault(), MAX_FAULT_ATTEMPTS, Disposition.FAIL),
        (OSError(28, "No space left on device"), 1, Disposition.RETRY),
        (OSError(28, "No space left on device"), MAX_FAULT_ATTEMPTS, Disposition.FAIL),
        (ImageRefused(), 1, Disposition.FAIL),
        (ContainerMissing(), 1, Disposition.FAIL),
        (Undecodable(), 1, Disposition.FAIL),
        (KeyError(), 1, Disposition.FAIL),
    ],
)
def test_what_becomes_of_an_error(error: Exception, tries: int, expected: Disposition) -> None:
    assert disposition(error, tries) is expected


def test_the_pause_grows_up_to_a_limit() -> None:
    assert [back_off(n) for n in (1, 2, 3, 5, 6, 10_000)] == [0.5, 1.0, 2.0, 8.0, 10.0, 10.0]
