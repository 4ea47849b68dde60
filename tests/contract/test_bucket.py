"""The bucket's contract, on the fake."""

import pytest

from abaco_proto.errors import Unavailable
from contract.bucket_suite import BucketSuite
from fakes import InMemoryBucket


@pytest.fixture
def bucket() -> InMemoryBucket:
    return InMemoryBucket()


class TestInMemoryBucket(BucketSuite):
    pass


async def test_a_bucket_that_is_away_refuses(bucket: InMemoryBucket) -> None:
    bucket.available = False
    with pytest.raises(Unavailable):
        await bucket.get("a")
