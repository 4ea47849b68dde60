"""When a client of several servers leaves the one it is connected to for the next one.

The rule: a server is left when something that was asked there has had no answer for a while. Each
kind of request has a clock of its own, because a server that is cut off from the others still
answers what it can read on its own disk; that says nothing about whether it will ever store an
event. The clock starts when the first request without an answer was sent, and stops with the next
answer to a request of its kind. A new connection starts all of them afresh.

The servers are tried in turn. A server may be known by two names (its own setting and what the
cluster advertises), so that the ids which the servers give themselves tell which ones were left.
"""


class Failover:
    """What a connection knows of its server. Time is an argument, in seconds of any clock."""

    def __init__(self, seconds: float) -> None:
        """A server is left ``seconds`` after the first request that it did not answer."""
        self._seconds = seconds
        self._since: dict[str, float] = {}
        self._connected = float("-inf")
        self._left: set[str] = set()
        self._skipped = 0

    def connected(self, server_id: str, names: int, now: float) -> bool:
        """Note a new connection; tell whether to stay.

        Not at a server that was left before, until each of the ``names`` was tried.
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
        """A request of this kind was answered."""
        if self._since.pop(kind, None) is not None and not self._since:
            self._left.clear()

    def unanswered(self, kind: str, begun: float, now: float) -> bool:
        """A request that was sent at ``begun`` has no answer; tell whether to leave the server.

        What was sent over an earlier connection says nothing about this server.
        """
        if begun < self._connected:
            return False
        return now - self._since.setdefault(kind, begun) >= self._seconds

    def leave(self, server_id: str) -> None:
        """The server is left."""
        self._since.clear()
        self._left.add(server_id)
