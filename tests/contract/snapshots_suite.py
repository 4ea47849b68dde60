"""What every ``Snapshots`` promises. ``test_snapshots.py`` runs it on the fake and JetStream."""

import pytest

from abaco_jetstream.ports import Snapshots
from abaco_proto.errors import Unavailable

TOO_MUCH = 9 * 1024 * 1024


class SnapshotsSuite:
    async def test_there_is_none_at_first(self, snapshots: Snapshots) -> None:
        assert await snapshots.get("one") is None

    async def test_the_last_one_is_kept(self, snapshots: Snapshots) -> None:
        for value in (b"old", b"\x00\xff" * 1_000_000, b"new"):
            await snapshots.put("one", value)
            assert await snapshots.get("one") == value

    async def test_each_name_has_its_own_value(self, snapshots: Snapshots) -> None:
        await snapshots.put("one", b"1")
        await snapshots.put("other", b"2")
        assert await snapshots.get("one") == b"1"

    async def test_one_that_is_too_large_leaves_the_last_one(self, snapshots: Snapshots) -> None:
        await snapshots.put("one", b"1")
        with pytest.raises(Unavailable):
            await snapshots.put("one", bytes(TOO_MUCH))
        assert await snapshots.get("one") == b"1"
