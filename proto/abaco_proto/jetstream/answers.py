"""Requests and their answers: one inbox for all of them, and each answer straight to who waits.

nats-py does the same by way of a queue and a task for all answers, and with a random name, two
futures and a callback for each: that took a tenth of what it costs the api to accept a message.
"""

import asyncio
from collections.abc import Mapping

import nats.errors
from nats.aio.msg import Msg

from abaco_proto.jetstream.client import QuickClient

STATUS, NO_RESPONDERS = "Status", "503"


class Answers:
    """The answers to one client's requests."""

    def __init__(self, client: QuickClient) -> None:
        """Nobody listens yet."""
        self._client = client
        self._inbox = ""
        self._asked = 0
        self._waiting: dict[str, asyncio.Future[bytes]] = {}

    async def listen(self) -> None:
        """Listen from now on, over reconnections too. To be called once, when connected."""
        self._inbox = self._client.new_inbox()
        subscription = await self._client.subscribe(f"{self._inbox}.*", cb=self._on_message)
        self._client.straight(subscription, self._take)

    async def ask(
        self, subject: str, body: bytes, headers: Mapping[str, str] | None, seconds: float
    ) -> bytes:
        """The body of the answer to one request.

        Raises:
            nats.errors.Error: there is none, for whatever reason; ``TimeoutError`` is one of them.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()
        self._asked += 1
        token = str(self._asked)
        self._waiting[token] = answer
        limit = loop.call_later(seconds, _give_up, answer)
        try:
            reply = f"{self._inbox}.{token}"
            await self._client.publish(subject, body, reply, dict(headers) if headers else None)
            return await answer
        finally:
            limit.cancel()
            del self._waiting[token]

    async def _on_message(self, message: Msg) -> None:
        self._take(message.subject, message.reply, message.headers, message.data)

    def _take(self, subject: str, _: str, headers: Mapping[str, str] | None, body: bytes) -> None:
        answer = self._waiting.get(subject[len(self._inbox) + 1 :])
        if answer is None or answer.done():
            return
        if headers is not None and headers.get(STATUS) == NO_RESPONDERS:
            answer.set_exception(nats.errors.NoRespondersError())
        else:
            answer.set_result(body)


def _give_up(answer: "asyncio.Future[bytes]") -> None:
    if not answer.done():
        answer.set_exception(nats.errors.TimeoutError())
