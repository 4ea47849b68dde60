"""Replies of JetStream reach the requests they belong to, a few at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import nats.errors
import pytest
from nats.aio.msg import Msg

from abaco_jetstream.connection import reply_inbox
from abaco_jetstream.connection.reply_inbox import REPLIES_PER_ITERATION, ReplyInbox

SUBJECT = "abaco.event.default.foo_0.message.received"


class Client:
    """A client whose server answers when the test calls ``answer``, and in that order."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes, str, Mapping[str, str] | None]] = []
        self.subscribed = ""
        self.callback: Callable[[Msg], Awaitable[None]]
        self.replies: asyncio.Queue[Msg] = asyncio.Queue()

    def new_inbox(self) -> str:
        return "_INBOX.x"

    async def subscribe(self, subject: str, cb: Callable[[Msg], Awaitable[None]]) -> None:
        self.subscribed = subject
        self.callback = cb

    async def publish(
        self, subject: str, body: bytes, reply: str, headers: dict[str, str] | None
    ) -> None:
        self.sent.append((subject, body, reply, headers))

    def answer(self, n: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        client: Any = self
        message = Msg(_client=client, subject=self.sent[n][2], data=body, headers=headers)
        self.replies.put_nowait(message)

    async def deliver(self) -> None:
        """As the subscription's task in nats-py."""
        while True:
            await self.callback(await self.replies.get())


class Stage:
    def __init__(self) -> None:
        self.client = Client()
        client: Any = self.client
        self.inbox = ReplyInbox(client)

    async def asked(self, count: int, seconds: float = 5.0) -> list["asyncio.Task[bytes]"]:
        """So many requests that are on their way."""
        await self.inbox.subscribe()
        tasks = [
            asyncio.create_task(self.inbox.request(SUBJECT, b"%d" % n, {"n": str(n)}, seconds))
            for n in range(count)
        ]
        while len(self.client.sent) < count:
            await asyncio.sleep(0)
        self.delivering = asyncio.create_task(self.client.deliver())
        return tasks


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def test_each_gets_its_own(stage: Stage) -> None:
    first, second = await stage.asked(2)
    assert stage.client.subscribed == "_INBOX.x.*"
    assert [sent[:2] for sent in stage.client.sent] == [(SUBJECT, b"0"), (SUBJECT, b"1")]
    assert [sent[3] for sent in stage.client.sent] == [{"n": "0"}, {"n": "1"}]
    stage.client.answer(1, b"b")
    stage.client.answer(0, b"a")
    assert (await first, await second) == (b"a", b"b")
    assert not stage.inbox._pending


async def test_many_at_once_are_handed_out_a_few_at_a_time(stage: Stage) -> None:
    few = REPLIES_PER_ITERATION
    tasks = await stage.asked(2 * few + 1)
    pending = list(stage.inbox._pending.values())
    for n in range(len(tasks)):
        stage.client.answer(n, b"%d" % n)
    resolved = []
    while not all(reply.done() for reply in pending):
        await asyncio.sleep(0)
        resolved.append(sum(reply.done() for reply in pending))
    assert [count for count in resolved if count] == [few, 2 * few, 2 * few + 1]
    assert await asyncio.gather(*tasks) == [b"%d" % n for n in range(len(tasks))]


async def test_nobody_is_there(stage: Stage) -> None:
    [task] = await stage.asked(1)
    stage.client.answer(0, b"", {reply_inbox.STATUS: reply_inbox.NO_RESPONDERS})
    with pytest.raises(nats.errors.NoRespondersError):
        await task


async def test_none_in_time_and_too_late(stage: Stage) -> None:
    [task] = await stage.asked(1, seconds=0.01)
    with pytest.raises(nats.errors.TimeoutError):
        await task
    stage.client.answer(0, b"late")
    await asyncio.sleep(0)
    assert not stage.inbox._pending


async def test_who_asked_went_away_as_the_answer_came(stage: Stage) -> None:
    first, second = await stage.asked(2)
    for n in range(2):
        stage.client.answer(n, b"%d" % n)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await second == b"1"
