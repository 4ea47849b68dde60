"""A limit on invalid credentials, by address. Pure: the time is an argument.

Each address has a number of failures that it may make at once; they come back at a constant rate.
The table is bounded: the address that failed longest ago is forgotten first.
"""

import ipaddress
from collections import OrderedDict

MAX_ADDRESSES = 10_000
IPV6_PREFIX = 64
"""The first bits of an IPv6 address, which all addresses of one client usually share."""


class FailureLimit:
    """Counts failures; ``burst`` at once, ``per_minute`` in the long run."""

    def __init__(self, *, burst: int, per_minute: float) -> None:
        self._burst = burst
        self._per_second = per_minute / 60
        self._failures: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def is_exceeded(self, address: str, now: float) -> bool:
        """Whether an address has no failure left."""
        return self._count(network_of(address), now) > self._burst - 1

    def failed(self, address: str, now: float) -> None:
        """Count a failure."""
        network = network_of(address)
        self._failures[network] = (self._count(network, now) + 1, now)
        self._failures.move_to_end(network)
        while len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)

    def _count(self, network: str, now: float) -> float:
        count, at = self._failures.get(network, (0.0, now))
        return max(0.0, count - (now - at) * self._per_second)


def network_of(address: str) -> str:
    """What counts as one address: an IPv4 address, or the network of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, IPV6_PREFIX), strict=False))
