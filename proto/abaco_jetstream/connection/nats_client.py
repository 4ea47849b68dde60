"""nats-py's client, which leaves a server that accepts no data.

nats-py closes a connection in an orderly way: it waits until the peer has accepted what is not sent
yet. A server that is stopped or cut off accepts nothing, and the client would wait for the TCP
timeout, up to a quarter of an hour, before it connects to another. So this client aborts the
connection. nats-py has no public method for that, so two private methods are overridden;
``tests/unit/test_proto_servers.py`` shows that each is needed. See docs/adr/0061.
"""

from nats.aio.client import Client, Srv

FLUSH_SECONDS = 2


class NatsClient(Client):
    """A client that aborts its connection before it connects to another server."""

    @property
    def server(self) -> str:
        """Host and port of the server that is connected, without user and password."""
        url = self.connected_url
        return f"{url.hostname}:{url.port}" if url is not None else "(none)"

    @property
    def server_id(self) -> str:
        """The id that the server gives itself, which is the same for all of its addresses."""
        return str(self._server_info.get("server_id", ""))

    async def flush(self, timeout: int = FLUSH_SECONDS) -> None:  # noqa: ASYNC109 - as the parent
        """Wait until the server has answered all that was sent; the parent waits 10 seconds."""
        await super().flush(timeout)

    async def force_reconnect(self) -> None:
        """Connect to the next server, even if this one accepts no data."""
        if self.is_connected:
            self._abort()
        await super().force_reconnect()

    async def _process_op_err(self, e: Exception) -> None:
        if self.is_connected:
            self._abort()
        await super()._process_op_err(e)

    async def _connect_to_server(self, s: Srv) -> None:
        self._abort()  # the rest of a failed attempt
        await super()._connect_to_server(s)

    def _abort(self) -> None:
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()
