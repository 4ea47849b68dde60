"""The contract of snapshots, on the fake."""

import pytest

from contract.snapshots_suite import SnapshotsSuite
from fakes import InMemorySnapshots


@pytest.fixture
def snapshots() -> InMemorySnapshots:
    return InMemorySnapshots()


class TestInMemorySnapshots(SnapshotsSuite):
    pass
