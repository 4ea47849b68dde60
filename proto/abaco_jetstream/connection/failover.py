"""When a client of a cluster leaves its server for the next one.

A server is left when a request has had no answer for some seconds. Each kind of request has its own
clock, because a server that is cut off from the others still answers reads from its own disk, which
does not show that it can store an event. The clock starts when the first unanswered request was
sent, and stops at the next answer to a request of that kind. A new connection resets all clocks.

The servers are tried in turn. One server may have two addresses (that of the setting, and the one
the cluster announces), so servers that were left are recognised by the ids they give themselves.
"""


class Failover:
    """The clocks of a connection. Time is an argument, in seconds of any clock."""

    def __init__(self, seconds: float) -> None:
        """Leave a server ``seconds`` after the first request that it did not answer."""
        self._seconds = seconds
        self._since: dict[str, float] = {}
        self._connected = float("-inf")
        self._left: set[str] = set()
        self._skipped = 0

    def connected(self, server_id: str, names: int, now: float) -> bool:
        """Note a new connection, and return whether to keep it.

        A server that was left is not used again until each of the ``names`` addresses was tried.
        """
        self._connected = now
        self._since.clear()
        if len(self._left) >= names:
            self._left.clear()
        if server_id in self._left and self._skipped < names:
            self._skipped += 1
            return False
        if server_id in self._left:
            self._left.clear()
        self._skipped = 0
        return True

    def answered(self, kind: str) -> None:
        """Note an answer to a request of this kind."""
        if self._since.pop(kind, None) is not None and not self._since:
            self._left.clear()

    def unanswered(self, kind: str, begun: float, now: float) -> bool:
        """Note that a request sent at ``begun`` has no answer; return whether to leave the server.

        A request sent over an earlier connection does not count.
        """
        if begun < self._connected:
            return False
        return now - self._since.setdefault(kind, begun) >= self._seconds

    def leave(self, server_id: str) -> None:
        """Note that the client leaves this server."""
        self._since.clear()
        self._left.add(server_id)
