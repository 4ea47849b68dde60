"""Requests and their answers: one inbox for all of them, and each answer straight to who waits.

nats-py has a queue and a task for all answers, and a random name, two futures and a callback for
each: a seventh of what it cost the api to accept a message.

Theory: JetStream takes whatever has come by then as one batch, and answers all of it at once. Who
takes all these answers at once sends what follows from them at once, too, and then either waits for
the other. So answers are handed out a few at a time: what follows from the first is on its way
while the rest are worked on.
"""

import asyncio
from collections import deque
from collections.abc import Mapping

import nats.errors
from nats.aio.msg import Msg

from abaco_jetstream.client import QuickClient

FEW = 4
"""With 16 or 64 inboxes the api accepts a quarter more messages than with all at once. Fewer would
cost it more time of its own for each."""

STATUS, NO_RESPONDERS = "Status", "503"


class Answers:
    """The answers to one client's requests."""

    def __init__(self, client: QuickClient) -> None:
        """Nobody listens yet."""
        self._client = client
        self._inbox = ""
        self._asked = 0
        self._waiting: dict[str, asyncio.Future[bytes]] = {}
        self._arrived: deque[tuple[asyncio.Future[bytes], bytes | None]] = deque()

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
            nats.errors.Error: there is none. In time, if it is a ``TimeoutError``; at all, if it
                is a ``NoRespondersError``.
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
        if answer is None:
            return
        nobody = headers is not None and headers.get(STATUS) == NO_RESPONDERS
        self._arrived.append((answer, None if nobody else body))
        if len(self._arrived) == 1:
            asyncio.get_running_loop().call_soon(self._hand_out)

    def _hand_out(self) -> None:
        """A few now, and the next few when the loop has been round."""
        for _ in range(min(FEW, len(self._arrived))):
            answer, body = self._arrived.popleft()
            if answer.done():
                continue
            if body is None:
                answer.set_exception(nats.errors.NoRespondersError())
            else:
                answer.set_result(body)
        if self._arrived:
            asyncio.get_running_loop().call_soon(self._hand_out)


def _give_up(answer: "asyncio.Future[bytes]") -> None:
    if not answer.done():
        answer.set_exception(nats.errors.TimeoutError())
