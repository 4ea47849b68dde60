"""The output log's contract, on the fake."""

import pytest

from contract.output_log_suite import OutputLogSuite
from fakes import InMemoryOutputLog


@pytest.fixture
def outputs() -> InMemoryOutputLog:
    return InMemoryOutputLog()


class TestInMemoryOutputLog(OutputLogSuite):
    pass
