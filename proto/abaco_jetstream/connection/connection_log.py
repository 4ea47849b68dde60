"""The log lines of a connection: each change of its state is logged once."""

import logging

logger = logging.getLogger(__name__)


class ConnectionLog:
    """What was logged already, so that a state that lasts is not logged again."""

    def __init__(self) -> None:
        """Nothing was logged yet."""
        self._unavailable = False
        self._unusable = ""
        self._rejected: set[str] = set()

    def unavailable(self, error: str, *, connected: bool) -> None:
        """An attempt to connect failed. nats-py retries, and reports each attempt."""
        level = logging.DEBUG if self._unavailable or connected else logging.WARNING
        self._unavailable |= level == logging.WARNING
        logger.log(
            level,
            "NATS is unavailable (%s); retrying. Check that the server runs, and ABACO_NATS_URL",
            error,
        )

    def unusable(self, reason: str) -> None:
        """The streams cannot be made or read: no service works before they can."""
        if reason != self._unusable:
            logger.warning("NATS is connected but not usable yet; retrying. Cause: %s", reason)
            self._unusable = reason

    def connected(self, server: str) -> None:
        """The first connection is open, and the streams exist."""
        logger.info("connected to NATS server %s", server)

    def lost(self) -> None:
        """The connection was closed by the server, or the network."""
        logger.warning(
            "NATS connection lost; reconnecting. If this lasts, check that the server runs"
        )

    def reconnected(self, server: str) -> None:
        """There is a connection again."""
        self._unavailable = False
        logger.info("reconnected to NATS server %s", server)

    def failover(self, server: str, error: str) -> None:
        """A server that does not answer is left for the next one."""
        logger.warning(
            "NATS server %s does not answer (%s); connecting to the next server. Check that it"
            " runs and reaches the others",
            server,
            error,
        )

    def rejected(self, prefix: str, error: str) -> None:
        """The server is connected, and stores nothing under this prefix of a subject."""
        if prefix not in self._rejected:
            logger.warning(
                "NATS rejects appends to %s.>: %s. If the server's disk is full, free disk space;"
                " see docs/how-to/outages.md",
                prefix,
                error,
            )
            self._rejected.add(prefix)

    def accepted(self, prefix: str) -> None:
        """The server stores messages under this prefix."""
        if prefix in self._rejected:
            logger.info("NATS accepts appends to %s.> again", prefix)
            self._rejected.discard(prefix)
