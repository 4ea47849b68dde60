"""The helper client."""

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from abaco_proto.errors import Unavailable
from abaco_worker.domain.engine_errors import EngineFault
from abaco_worker.engine.docker_helper import helper_arguments
from abaco_worker.sandbox import helper_client as module
from abaco_worker.sandbox.helper_client import HelperChannel, HelperClient, find_helper, start_child
from abaco_worker.sandbox.sandbox_directory import ProcessIdentity
from deadlines import LIMIT_SECONDS
from launcher_stage import program


class Answers:
    """A channel with prepared answers; an exception is raised."""

    def __init__(self, *answers: str | Exception) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []
        self.closed = False

    async def ask(self, line: str) -> str:
        self.asked.append(line)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        self.closed = True


def helper_on(*channels: Answers) -> HelperClient:
    rest = iter(channels)

    async def open_channel() -> HelperChannel:
        return next(rest)

    return HelperClient(open_channel)


async def test_a_launcher_is_asked_for_by_line() -> None:
    channel = Answers("started 4711 99\n", "started 4712 100\n")
    helper = helper_on(channel)
    assert await helper.start("start", "abc", 42, "abaco-x") == ProcessIdentity(
        pid=4711, started=99
    )
    assert await helper.start("sandbox", "def", 43, "abaco-y") == ProcessIdentity(
        pid=4712, started=100
    )
    assert channel.asked == ["start 42 abc abaco-x\n", "sandbox 43 def abaco-y\n"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("error it went away\n", "no launcher could be started: it went away"),
        ("started soon\n", "started soon"),
        ("started 1 2 3\n", "started 1 2 3"),
        ("", "the helper ended"),
        (BrokenPipeError("no pipe"), "no pipe"),
        (TimeoutError(), "longer than"),
    ],
)
async def test_one_that_cannot_be_had_is_a_fault(answer: str | Exception, words: str) -> None:
    channel = Answers(answer)
    with pytest.raises(EngineFault, match=words):
        await helper_on(channel).start("start", "abc", 42, "x")
    assert channel.closed == (answer == "" or isinstance(answer, Exception))


async def test_a_helper_that_ended_is_replaced() -> None:
    helper = helper_on(Answers(""), Answers("started 1 2\n"))
    with pytest.raises(EngineFault):
        await helper.start("start", "abc", 42, "x")
    assert await helper.start("start", "abc", 42, "x") == ProcessIdentity(pid=1, started=2)


async def test_an_answer_that_nobody_waits_for_is_nobody_elses(tmp_path: Path) -> None:
    waiting = asyncio.Event()

    class Silent(Answers):
        async def ask(self, line: str) -> str:
            waiting.set()
            await asyncio.Event().wait()
            return ""

    silent = Silent()
    helper = helper_on(silent, Answers("started 1 2\n"))
    asking = asyncio.create_task(helper.start("start", "abc", 42, "x"))
    await waiting.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert silent.closed
    assert await helper.start("start", "def", 43, "y") == ProcessIdentity(pid=1, started=2)


def made(answers: Sequence[str | Exception]) -> Callable[[Path, Path], object]:
    async def child_of(_: Path, __: Path) -> HelperChannel:
        return Answers(*answers)

    return child_of


async def test_a_worker_that_may_starts_launchers_itself_else_the_engine_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sees = True
    asked: list[str] = []
    monkeypatch.setattr(module, "_shares_pid_namespace", lambda location: sees)

    async def by_engine() -> HelperChannel:
        asked.append("engine")
        return Answers("ok\n")

    monkeypatch.setattr(module, "start_child", made(["ok\n"]))
    await find_helper(Path("p"), tmp_path / "w", "unix:///x", by_engine)
    assert asked == []
    assert (tmp_path / "w").is_dir()
    monkeypatch.setattr(module, "start_child", made(["error it lacks capabilities\n"]))
    await find_helper(Path("p"), tmp_path / "w", "unix:///x", by_engine)
    assert asked == ["engine"]
    sees = False
    monkeypatch.setattr(module, "start_child", made([]))
    await find_helper(Path("p"), tmp_path / "w", "unix:///x", by_engine)
    assert asked == ["engine", "engine"]

    async def refuses() -> HelperChannel:
        raise EngineFault("pid mode is not allowed")

    sees = True
    monkeypatch.setattr(module, "start_child", made(["error it lacks capabilities\n"]))
    with pytest.raises(EngineFault, match=r"it lacks capabilities; .*not allowed"):
        await find_helper(Path("p"), tmp_path / "w", "unix:///x", refuses)


async def test_an_engine_that_is_away_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that starts before its engine does not start cold for good."""
    monkeypatch.setattr(module, "start_child", made(["error it lacks capabilities\n"]))
    channels: list[Exception | Answers] = [Unavailable("it is away"), Answers("started 1 2\n")]

    async def by_engine() -> HelperChannel:
        channel = channels.pop(0)
        if isinstance(channel, Exception):
            raise channel
        return channel

    away = f"unix://{tmp_path}/not-there"
    helper = await find_helper(Path("p"), tmp_path / "w", away, by_engine)
    assert await helper.start("start", "abc", 42, "x") == ProcessIdentity(pid=1, started=2)


async def test_a_real_one_says_what_it_lacks_and_ends_with_its_input(tmp_path: Path) -> None:
    channel = await start_child(program(), tmp_path)
    answer = await channel.ask("check\n")
    expected = (
        "ok\n" if os.geteuid() == 0 else "error it lacks capabilities of the machine's root\n"
    )
    assert answer == expected
    assert await channel.ask("start 1 x y\n") == "error malformed command\n"
    channel.close()
    assert await asyncio.wait_for(channel.wait(), LIMIT_SECONDS) == 0


def test_the_helpers_container_is_alone_but_for_what_it_enters() -> None:
    told = helper_arguments("i", "h1", Path("/var/lib/abaco/worker"), ("ALL",))
    config = told["host_config"]
    assert (config["PidMode"], config["NetworkMode"], config["CgroupnsMode"]) == (
        "host",
        "none",
        "host",
    )
    assert config["Binds"] == [
        "/var/lib/abaco/worker:/var/lib/abaco/worker",
        "/sys/fs/cgroup:/sys/fs/cgroup",
    ]
    assert told["labels"] == {"abaco.helper": "h1"}
    assert "Privileged" not in config
