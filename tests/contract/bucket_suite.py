"""What every adapter of the bucket promises."""

import asyncio

import pytest

from abaco_proto.bucket import Bucket, Cell
from abaco_proto.errors import Conflict
from deadlines import LIMIT_SECONDS

DAY = 86_400


class BucketSuite:
    async def test_a_key_nobody_wrote_has_no_value(self, bucket: Bucket) -> None:
        assert await bucket.get("nobody") is None

    async def test_a_value_is_read_back(self, bucket: Bucket) -> None:
        revision = await bucket.put("a", b"1", revision=0, seconds=DAY)
        assert await bucket.get("a") == Cell(revision, b"1")
        assert await bucket.get("b") is None

    async def test_of_many_who_make_a_key_one_does(self, bucket: Bucket) -> None:
        tries = [bucket.put("a", b"%d" % n, revision=0, seconds=DAY) for n in range(20)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        [revision] = [r for r in results if isinstance(r, int)]
        assert sum(isinstance(r, Conflict) for r in results) == 19
        assert await bucket.get("a") == Cell(revision, b"%d" % results.index(revision))

    async def test_only_who_saw_the_last_value_replaces_it(self, bucket: Bucket) -> None:
        first = await bucket.put("a", b"1", revision=0, seconds=DAY)
        second = await bucket.put("a", b"2", revision=first, seconds=DAY)
        assert second > first
        for stale in (0, first, second + 1):
            with pytest.raises(Conflict):
                await bucket.put("a", b"3", revision=stale, seconds=DAY)
        assert await bucket.get("a") == Cell(second, b"2")

    async def test_a_value_goes_when_its_time_is_over(self, bucket: Bucket) -> None:
        first = await bucket.put("a", b"1", revision=0, seconds=1)
        await bucket.put("b", b"1", revision=0, seconds=1)
        await bucket.put("a", b"2", revision=first, seconds=DAY)
        async with asyncio.timeout(LIMIT_SECONDS):
            while await bucket.get("b") is not None:
                await asyncio.sleep(0.02)
        assert await bucket.get("a") is not None
        again = await bucket.put("b", b"2", revision=0, seconds=DAY)
        assert await bucket.get("b") == Cell(again, b"2")
