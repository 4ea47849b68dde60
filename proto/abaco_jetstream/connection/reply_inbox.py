"""Requests and their replies, over one subscription.

JetStream stores the appends that have arrived as one batch, and replies to all of them at once. If
all waiting tasks continued at once, their next appends would arrive as one batch too, and client
and server would wait for each other in turn. So only a few tasks continue before the event loop
runs: their next appends are sent while the other replies are processed. See docs/adr/0061.
"""

import asyncio
from collections.abc import Mapping

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

REPLIES_PER_ITERATION = 4
"""With 64 inboxes the api accepted up to a third more messages than with all replies at once, and
never noticeably fewer (docs/adr/0061)."""

STATUS, NO_RESPONDERS = "Status", "503"


class ReplyInbox:
    """The replies to the requests of one client."""

    def __init__(self, client: Client) -> None:
        """Call :meth:`subscribe` before the first request."""
        self._client = client
        self._inbox = ""
        self._requests = 0
        self._replies = 0
        self._pending: dict[str, asyncio.Future[bytes]] = {}

    async def subscribe(self) -> None:
        """Subscribe to the inbox. nats-py renews the subscription after a reconnection."""
        self._inbox = self._client.new_inbox()
        await self._client.subscribe(f"{self._inbox}.*", cb=self._on_reply)

    async def request(
        self,
        subject: str,
        body: bytes,
        headers: Mapping[str, str] | None,
        timeout: float,  # noqa: ASYNC109 - the timer costs less than a scope for each request
    ) -> bytes:
        """Send a request and return the body of the reply. ``timeout`` is in seconds.

        Raises:
            nats.errors.TimeoutError: no reply in time.
            nats.errors.NoRespondersError: no server subscribes to the subject now.
            nats.errors.Error: the request could not be sent.
        """
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[bytes] = loop.create_future()
        self._requests += 1
        token = str(self._requests)
        self._pending[token] = reply
        timer = loop.call_later(timeout, _time_out, reply)
        try:
            reply_subject = f"{self._inbox}.{token}"
            await self._client.publish(subject, body, reply_subject, dict(headers or {}) or None)
            return await reply
        finally:
            timer.cancel()
            del self._pending[token]

    async def _on_reply(self, message: Msg) -> None:
        reply = self._pending.get(message.subject[len(self._inbox) + 1 :])
        if reply is None or reply.done():
            return
        if message.headers is not None and message.headers.get(STATUS) == NO_RESPONDERS:
            reply.set_exception(nats.errors.NoRespondersError())
        else:
            reply.set_result(message.data)
        self._replies += 1
        if self._replies % REPLIES_PER_ITERATION == 0:
            await asyncio.sleep(0)


def _time_out(reply: "asyncio.Future[bytes]") -> None:
    if not reply.done():
        reply.set_exception(nats.errors.TimeoutError())
