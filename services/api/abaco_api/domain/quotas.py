"""Quotas of a tenant: what it may have, and how fast. Pure: the time is an argument."""

from abaco_api.api_errors import QuotaExceeded, TooMany


class RequestRate:
    """The requests of one tenant: ``per_second`` in the long run, and as many at once."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._count = 0.0
        self._at = 0.0

    def take(self, now: float) -> None:
        """Count a request, at a reading of the monotonic clock in seconds.

        Raises:
            TooMany: there were too many before it; it does not count.
        """
        count = max(0.0, self._count - (now - self._at) * self._per_second)
        if count > self._per_second - 1:
            quota = f"{self._per_second} requests a second"
            raise TooMany(f"max_tenant_requests_per_second: the tenant may send {quota}")
        self._count, self._at = count + 1, now


def check_actors(count: int, most: int) -> None:
    """Check that a tenant with so many actors may register one more.

    Raises:
        QuotaExceeded: it may not.
    """
    if count >= most:
        raise QuotaExceeded(f"max_tenant_actors: the tenant has {count} actors, at most {most}")
