"""Answers of JetStream find who waits for them, a few at a time."""

import asyncio
from collections.abc import Mapping
from typing import Any

import nats.errors
import pytest

from abaco_jetstream import answers as answers_module
from abaco_jetstream.answers import FEW, Answers
from abaco_jetstream.client import Take

SUBJECT = "abaco.event.default.foo_0.message.received"


class Client:
    """A client whose server answers when the test says so."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes, str, Mapping[str, str] | None]] = []
        self.subscribed = ""
        self.take: Take

    def new_inbox(self) -> str:
        return "_INBOX.x"

    async def subscribe(self, subject: str, **_: Any) -> str:
        self.subscribed = subject
        return "subscription"

    def straight(self, subscription: str, take: Take) -> None:
        assert subscription == "subscription"
        self.take = take

    async def publish(
        self, subject: str, body: bytes, reply: str, headers: dict[str, str] | None
    ) -> None:
        self.sent.append((subject, body, reply, headers))

    def answer(self, n: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.take(self.sent[n][2], "", headers, body)


class Stage:
    def __init__(self) -> None:
        self.client = Client()
        client: Any = self.client
        self.answers = Answers(client)

    async def asked(self, count: int, seconds: float = 5.0) -> list["asyncio.Task[bytes]"]:
        """So many requests that are on their way."""
        await self.answers.listen()
        tasks = [
            asyncio.create_task(self.answers.ask(SUBJECT, b"%d" % n, {"n": str(n)}, seconds))
            for n in range(count)
        ]
        while len(self.client.sent) < count:
            await asyncio.sleep(0)
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
    assert not stage.answers._waiting


async def test_many_at_once_are_handed_out_a_few_at_a_time(stage: Stage) -> None:
    tasks = await stage.asked(2 * FEW + 1)
    waiting = list(stage.answers._waiting.values())
    for n in range(len(tasks)):
        stage.client.answer(n, b"%d" % n)
    told = []
    while not all(answer.done() for answer in waiting):
        await asyncio.sleep(0)
        told.append(sum(answer.done() for answer in waiting))
    assert told == [FEW, 2 * FEW, 2 * FEW + 1]
    assert await asyncio.gather(*tasks) == [b"%d" % n for n in range(len(tasks))]


async def test_nobody_is_there(stage: Stage) -> None:
    [task] = await stage.asked(1)
    stage.client.answer(0, b"", {answers_module.STATUS: answers_module.NO_RESPONDERS})
    with pytest.raises(nats.errors.NoRespondersError):
        await task


async def test_none_in_time_and_too_late(stage: Stage) -> None:
    [task] = await stage.asked(1, seconds=0.01)
    with pytest.raises(nats.errors.TimeoutError):
        await task
    stage.client.answer(0, b"late")
    assert not stage.answers._arrived


async def test_who_asked_went_away_as_the_answer_came(stage: Stage) -> None:
    first, second = await stage.asked(2)
    for n in range(2):
        stage.client.answer(n, b"%d" % n)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await second == b"1"
