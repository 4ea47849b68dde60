"""A launcher of many requests: what a worker learns when it connects, and whom a halt is for."""

import os
import re
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

from abaco_worker.domain.run_report import parse_report
from launcher_stage import program, shell

SECONDS = 60
NO_LIMITS = b"0\x000\x000\x000\0"
UNTIL_THE_FILE_IS_THERE = "while [ ! -e {0} ]; do sleep 0.01; done; echo {1}; exit 6"


class Client:
    """One connection of a worker."""

    def __init__(self, folder: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(SECONDS)
        directory = os.open(folder, os.O_PATH)
        try:
            self.socket.connect(f"/proc/self/fd/{directory}/socket")
        except ConnectionRefusedError:
            self.socket.close()
            raise
        finally:
            os.close(directory)
        self._lines = self.socket.makefile("r")

    def line(self) -> str:
        try:
            return self._lines.readline().rstrip("\n")
        except ConnectionResetError:  # it closed the connection before it read everything
            return ""

    def lines(self, count: int) -> list[str]:
        """The kinds of lines, each with the id that it names."""
        return [" ".join(self.line().split(" ")[:2]) for _ in range(count)]

    def command(self, verb: bytes, body: bytes = b"", *files: int) -> None:
        socket.send_fds(self.socket, [verb + struct.pack("=I", len(body)) + body], files)

    def request(
        self, name: str | bytes, script: str, output: Path, *, limits: bytes = NO_LIMITS
    ) -> None:
        body = name if isinstance(name, bytes) else name.encode()
        with output.open("ab") as file, Path(f"{output}.report").open("wb") as report:
            encoded = body + b"\0" + limits + shell(script, grace_seconds=5).encode()
            self.command(b"RUN2", encoded, file.fileno(), report.fileno())

    def close(self) -> None:
        self._lines.close()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The folder of a launcher's socket."""
    path = tmp_path / "run"
    path.mkdir()
    with launcher(path):
        yield path


@contextmanager
def launcher(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [program(), "./socket", "again"], cwd=folder, stdin=subprocess.DEVNULL
    ) as running:
        try:
            while not (folder / "socket").exists():
                assert running.poll() is None
            yield running
        finally:
            running.kill()


def connected(folder: Path) -> Client:
    """A client; the launcher may not listen yet."""
    for _ in range(SECONDS * 100):
        try:
            return Client(folder)
        except ConnectionRefusedError:
            continue
    raise AssertionError("it does not listen")


def test_the_greeting_is_the_state_and_the_end_of_the_last_request(
    folder: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with connected(folder) as first:
        assert first.lines(1) == ["waiting"]
        first.request("one", UNTIL_THE_FILE_IS_THERE.format(gate, "a"), tmp_path / "a")
        started = first.line()
        assert re.fullmatch(r"started one [0-9]{19}", started)
    with connected(folder) as second:
        assert second.line() == started
        gate.touch()
        report = second.line()
        assert report.startswith("report one exit=6 ")
        assert second.line() == "waiting"
    assert (tmp_path / "a.report").read_text() == f"{report}\n"
    with connected(folder) as third:
        assert [third.line(), third.line()] == [report, "waiting"]
        gate.unlink()
        third.request("two", UNTIL_THE_FILE_IS_THERE.format(gate, "b"), tmp_path / "b")
        assert third.lines(1) == ["started two"]
    with connected(folder) as fourth:
        assert fourth.lines(2) == ["report one", "started two"]
        gate.touch()
        assert fourth.lines(2) == ["report two", "waiting"]
    assert [(tmp_path / name).read_text() for name in "ab"] == ["a\n", "b\n"]


def test_a_worker_that_ends_after_its_request_is_followed_by_one_that_learns_of_it(
    folder: Path, tmp_path: Path
) -> None:
    """Never by one that is greeted as if the request had not been sent."""
    connected(folder).close()
    for number in range(20):
        with Client(folder) as client:
            client.request(f"r-{number}", "exit 3", tmp_path / "out")
        with Client(folder) as next_one:
            lines: list[str] = []
            while not lines or lines[-1] not in {"waiting", f"started r-{number}"}:
                lines.extend(next_one.lines(1))
            while lines[-1] != "waiting":
                lines.extend(next_one.lines(1))
            assert f"report r-{number}" in lines


def test_a_report_that_cannot_be_written_is_in_the_greeting(folder: Path, tmp_path: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    with connected(folder) as client:
        client.command(
            b"RUN2", b"one\0" + NO_LIMITS + shell("echo lost; exit 8").encode(), full, full
        )
    os.close(full)
    with connected(folder) as client:
        line = client.line()
        while not line.startswith("report one "):
            line = client.line()
        report = parse_report(line.removeprefix("report one "))
    assert (report.exit_code, report.dropped_bytes) == (8, 5)


def test_a_halt_is_for_one_request(folder: Path, tmp_path: Path) -> None:
    with connected(folder) as client, connected(folder) as late:
        assert client.lines(1) + late.lines(1) == ["waiting", "waiting"]
        client.command(b"HALT", b"one")  # nothing runs
        client.request("one", "exec sleep 60", tmp_path / "out")
        assert client.lines(1) == ["started one"]
        late.command(b"HALT", b"one")
        report = client.line()
        assert report.startswith("report one ")
        assert " halted=1 " in report
        assert client.line() == "waiting"
        client.request("two", "sleep 0.3; exit 5", tmp_path / "out")
        for name in (b"one", b"tw", b"two ", b"two2"):
            late.command(b"HALT", name)
        assert client.lines(1) == ["started two"]
        assert re.match(r"report two exit=5 .* halted=0 ", client.line())


def test_two_workers_get_the_same_lines(folder: Path, tmp_path: Path) -> None:
    with connected(folder) as one, connected(folder) as other:
        assert one.lines(1) == other.lines(1) == ["waiting"]
        for sender, name in ((one, "one"), (other, "two")):
            sender.request(name, "exit 2", tmp_path / "out")
            heard = [f"started {name}", f"report {name}", "waiting"]
            assert one.lines(3) == other.lines(3) == heard


def test_a_request_is_refused_while_another_runs_and_after_it_has_run(
    folder: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with connected(folder) as one, connected(folder) as other:
        assert one.lines(1) + other.lines(1) == ["waiting", "waiting"]
        one.request("one", UNTIL_THE_FILE_IS_THERE.format(gate, "a"), tmp_path / "a")
        assert one.lines(1) + other.lines(1) == ["started one", "started one"]
        other.request("two", "echo b", tmp_path / "b")
        assert other.line() == "refused two another request runs"
        gate.touch()
        assert one.lines(2) + other.lines(2) == ["report one", "waiting"] * 2
        other.request("one", "echo again", tmp_path / "a")
        assert other.line() == "refused one it has run"
        other.request("two", "echo b", tmp_path / "b")
        assert other.lines(3) == ["started two", "report two", "waiting"]
    assert [(tmp_path / name).read_text() for name in "ab"] == ["a\n", "b\n"]


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        (b"", NO_LIMITS),
        (b"two words", NO_LIMITS),
        (b"two\nlines", NO_LIMITS),
        (b"\xc3\xa9", NO_LIMITS),
        (b"x" * 129, NO_LIMITS),
        (b"x", b"0\x000\x000\x00-1\0"),
        (b"x", b"0\x000\x000\x0064\0"),
        (b"x", b"1234567890123456789\x000\x000\x000\0"),
    ],
)
def test_what_is_no_request_is_not_run(
    folder: Path, tmp_path: Path, name: bytes, limits: bytes
) -> None:
    with connected(folder) as client:
        client.request(name, "exit 1", tmp_path / "out", limits=limits)
        assert client.line() == "waiting"
        assert client.line() in {"error malformed request", "refused x malformed request"}
        client.request("x" * 128, "exit 1", tmp_path / "out")
        assert client.lines(2) == [f"started {'x' * 128}", f"report {'x' * 128}"]


@pytest.mark.parametrize("body", [b"", b"x" * 129])
def test_a_halt_without_an_id_is_refused(folder: Path, body: bytes) -> None:
    with connected(folder) as client:
        client.command(b"HALT", body)
        assert client.lines(2) == ["waiting", "error malformed"]
        assert client.line() == ""


def test_a_request_of_one_use_is_refused(folder: Path, tmp_path: Path) -> None:
    with connected(folder) as client, (tmp_path / "out").open("wb") as file:
        client.command(b"RUN1", shell("exit 1").encode(), file.fileno(), file.fileno())
        assert client.lines(2) == ["waiting", "error malformed"]


def test_a_client_that_does_not_read_gets_whole_lines_and_then_the_end(
    folder: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with connected(folder) as deaf:
        deaf.request("one", UNTIL_THE_FILE_IS_THERE.format(gate, "a"), tmp_path / "a")
        assert deaf.lines(2) == ["waiting", "started one"]
        for _ in range(5000):
            deaf.command(b"EXIT")
        with Client(folder) as client:  # it is accepted when all that was sent is read
            assert client.lines(1) == ["started one"]
            gate.touch()
            assert client.lines(2) == ["report one", "waiting"]
        lines = list(iter(deaf.line, ""))
    assert set(lines) == {"error it still runs"}
    assert len(lines) < 5000
