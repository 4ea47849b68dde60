"""The launcher's protocol: which clients and requests it accepts, and restarts of the worker."""

import asyncio
import os
import signal
import socket
import struct
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from msgspec.structs import replace

from abaco_proto.errors import Malformed, Refused, Unavailable
from abaco_worker.domain.run_report import ProgramStarted, parse_report
from abaco_worker.sandbox.launcher_client import HEADER, connect, request_exit
from abaco_worker.sandbox.sandbox_directory import SandboxDirectory
from launcher_stage import (
    connected,
    ended,
    new_directory,
    process,
    process_of,
    read,
    request,
    shell,
)

UNTIL_THE_FILE_IS_THERE = "while [ ! -e {0} ]; do sleep 0.01; done; echo {1}; exit 6"


def raw(directory: SandboxDirectory) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(10)
    folder = os.open(directory.socket_folder, os.O_PATH)
    client.connect(f"/proc/self/fd/{folder}/socket")
    os.close(folder)
    return client


async def waiting(directory: SandboxDirectory) -> None:
    (await connect(directory, 10)).close()


def lines(client: socket.socket) -> list[bytes]:
    """Return everything it sends until it closes the connection."""
    said = b""
    with suppress(ConnectionResetError):  # it closed the connection before it read everything
        while data := client.recv(4096):
            said += data
    return said.splitlines()


# -- restarts of the worker


async def test_a_run_goes_on_without_its_worker_and_answers_the_one_that_comes_back(
    tmp_path: Path,
) -> None:
    directory = new_directory(tmp_path / "p")
    gate = tmp_path / "gate"
    with process(directory):
        async with connected(directory) as launcher:
            await launcher.launch(shell(UNTIL_THE_FILE_IS_THERE.format(gate, "through")))
            messages = launcher.messages()
            started = await anext(messages)
            await messages.aclose()
        async with connected(directory) as launcher:
            messages = launcher.messages()
            assert await anext(messages) == started
            assert isinstance(started, ProgramStarted)
            gate.touch()
            report = await anext(messages)
            await messages.aclose()
    assert report == directory.read_report()
    assert directory.output.read_bytes() == b"through\n"


async def test_a_run_that_ends_while_nobody_is_there_leaves_its_report(tmp_path: Path) -> None:
    directory = new_directory(tmp_path / "p")
    gate = tmp_path / "gate"
    with process(directory) as program:
        async with connected(directory) as launcher:
            await launcher.launch(shell(UNTIL_THE_FILE_IS_THERE.format(gate, "alone")))
            async for _ in launcher.messages():
                break
        assert directory.read_report() is None
        gate.touch()
        assert program.wait(10) == 6
    report = directory.read_report()
    assert report is not None
    assert report.exit_code == 6
    assert directory.output.read_bytes() == b"alone\n"
    with pytest.raises(Unavailable, match="does not answer"):
        await connect(directory, 0)


async def test_two_connections_hear_the_same(tmp_path: Path) -> None:
    directory = new_directory(tmp_path / "p")
    with process(directory):
        async with connected(directory) as one, connected(directory) as other:
            await one.launch(shell("exit 2"))
            reports = await asyncio.gather(one.wait_for_report(), other.wait_for_report())
    assert reports[0] == reports[1]


async def test_one_launcher_runs_one_request(tmp_path: Path) -> None:
    directory = new_directory(tmp_path / "p")
    gate = tmp_path / "gate"
    with process(directory):
        async with connected(directory) as one, connected(directory) as other:
            await one.launch(shell(UNTIL_THE_FILE_IS_THERE.format(gate, "first")))
            async for _ in one.messages():
                break
            await other.launch(shell("echo second"))
            with pytest.raises(Refused, match="too late"):
                await other.wait_for_report()
            gate.touch()
            assert (await one.wait_for_report()).exit_code == 6
    assert directory.output.read_bytes() == b"first\n"


async def test_a_report_that_cannot_be_written_waits_for_somebody(tmp_path: Path) -> None:
    directory = new_directory(tmp_path / "p")
    with process(directory) as program:
        await waiting(directory)
        full = os.open("/dev/full", os.O_WRONLY)
        with raw(directory) as client:
            body = request("/bin/sh", "-c", "echo lost; exit 8").encode()
            socket.send_fds(client, [HEADER.pack(b"RUN1", len(body)) + body], [full, full])
        os.close(full)
        await asyncio.sleep(0.3)
        assert program.poll() is None
        with raw(directory) as client:
            (line,) = lines(client)
        assert program.wait(10) == 8
    report = parse_report(line.decode())
    assert (report.exit_code, report.output_bytes, report.dropped_bytes) == (8, 0, 5)


async def test_a_launcher_that_was_killed_has_no_report(tmp_path: Path) -> None:
    directory = new_directory(tmp_path / "p")
    with process(directory) as program:
        async with connected(directory) as launcher:
            await launcher.launch(shell("kill -KILL $PPID"))
            with pytest.raises(Unavailable, match="without a report"):
                await launcher.wait_for_report()
        assert program.wait(10) == -signal.SIGKILL
    assert directory.read_report() is None


# -- while it is idle


@pytest.mark.parametrize("how", ["halt", "leave", "signal"])
async def test_a_waiting_launcher_can_be_ended(tmp_path: Path, how: str) -> None:
    directory = new_directory(tmp_path / "p")
    with process(directory) as program:
        async with connected(directory) as launcher:
            if how == "halt":
                await launcher.halt()
            elif how == "leave":
                assert await launcher.exit()
            else:
                program.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(program.wait, 10) == 0


async def test_it_uses_nothing_while_it_waits(tmp_path: Path) -> None:
    directory = new_directory(tmp_path / "p")
    with process(directory) as program:
        await waiting(directory)
        before = Path(f"/proc/{program.pid}/stat").read_text().split()[13:15]
        await asyncio.sleep(0.3)
        assert Path(f"/proc/{program.pid}/stat").read_text().split()[13:15] == before
        pages = int(Path(f"/proc/{program.pid}/statm").read_text().split()[1])
        assert pages * 4096 < 1_000_000


# -- what it refuses


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"RUN1" + struct.pack("=I", 0), b"error malformed request"),
        (HEADER.pack(b"RUN1", 2**21 + 1), b"error malformed command"),
        (HEADER.pack(b"RUN1", 2**32 - 1), b"error malformed command"),
        (HEADER.pack(b"HALT", 1), b"error malformed command"),
        (HEADER.pack(b"EXIT", 1), b"error malformed command"),
        (b"GET / HTTP/1.1\r\n\r\n", b"error malformed command"),
        (HEADER.pack(b"RUN1", 3) + b"abc", b"error malformed request"),
        (HEADER.pack(b"RUN1", 6) + b"1\0x\0z\0", b"error malformed request"),
        (HEADER.pack(b"RUN1", 2) + b"-\0", b"error malformed request"),
        (HEADER.pack(b"RUN1", 12) + b"1\x000\x000\0\0\x009\0x\0", b"error malformed request"),
        (HEADER.pack(b"RUN1", 12) + b"1\x000\x000\x000\0\0\x000\0", b"error malformed request"),
        (HEADER.pack(b"RUN1", 13) + b"1\x000\x000\x0065\0\0\x000\0", b"error malformed request"),
    ],
)
async def test_what_is_no_request_is_refused_and_it_goes_on_waiting(
    tmp_path: Path, sent: bytes, words: bytes
) -> None:
    directory = new_directory(tmp_path / "p")
    with process(directory), (tmp_path / "file").open("wb") as file:
        await waiting(directory)
        with raw(directory) as client:
            socket.send_fds(client, [sent], [file.fileno()] * 2)
            client.shutdown(socket.SHUT_WR)
            said = lines(client)
        assert said[0] == b"waiting"
        assert said[1].startswith(words)
        assert (await ended(directory, shell("exit 1"))).report.exit_code == 1


@pytest.mark.parametrize("count", [0, 1])
async def test_a_request_without_its_files_is_refused(tmp_path: Path, count: int) -> None:
    directory = new_directory(tmp_path / "p")
    with process(directory), (tmp_path / "file").open("wb") as file:
        await waiting(directory)
        with raw(directory) as client:
            socket.send_fds(client, [HEADER.pack(b"RUN1", 1)], [file.fileno()] * count)
            assert lines(client)[-1] == b"error no files came with the request"
        assert (await ended(directory, shell("exit 1"))).report.exit_code == 1


async def test_half_a_request_keeps_nobody_from_the_next(tmp_path: Path) -> None:
    directory = new_directory(tmp_path / "p")
    with process(directory), (tmp_path / "file").open("wb") as file:
        await waiting(directory)
        with raw(directory) as client:
            socket.send_fds(client, [HEADER.pack(b"RUN1", 1000) + b"x" * 10], [file.fileno()] * 2)
            with raw(directory) as second:
                socket.send_fds(second, [HEADER.pack(b"RUN1", 5)], [file.fileno()] * 2)
                assert lines(second)[-1] == b"error another request is on its way"
        assert (await ended(directory, shell("exit 1"))).report.exit_code == 1


async def test_more_connections_than_it_has_room_for_are_closed(tmp_path: Path) -> None:
    directory = new_directory(tmp_path / "p")
    with process(directory), ExitStack() as stack:
        await waiting(directory)
        clients = [stack.enter_context(raw(directory)) for _ in range(4)]
        assert [client.recv(100) for client in clients] == [b"waiting\n"] * 4
        with raw(directory) as surplus:
            assert surplus.recv(100) == b""
        clients[0].close()
        assert (await ended(directory, shell("exit 1"))).report.exit_code == 1


async def test_a_request_cut_in_pieces_is_put_together(tmp_path: Path) -> None:
    directory = new_directory(tmp_path / "p")
    with process(directory):
        await waiting(directory)
        body = request("/bin/sh", "-c", 'echo "$A"', environment={"A": "pieces"}).encode()
        frame = HEADER.pack(b"RUN1", len(body)) + body
        with (
            raw(directory) as client,
            directory.output.open("wb") as out,
            directory.report.open("wb") as end,
        ):
            socket.send_fds(client, [frame[:1]], [out.fileno(), end.fileno()])
            for at in range(1, len(frame)):
                client.sendall(frame[at : at + 1])
            lines(client)
    assert directory.output.read_bytes() == b"pieces\n"


async def test_a_large_request_arrives_whole(tmp_path: Path) -> None:
    directory = new_directory(tmp_path / "p")
    variables = {f"V{n}": str(n % 10) * 100_000 for n in range(15)}
    script = 'env | grep -c ^V; printf %s "$V7" | wc -c'
    with process(directory):
        run = await ended(directory, shell(script, variables))
    assert run.output.split() == [b"15", b"100000"]


# -- the client


async def test_what_no_program_can_get_is_not_sent(tmp_path: Path) -> None:
    for wrong in (
        shell("a\0b"),
        shell("", {"A=B": ""}),
        shell("", {"": ""}),
        shell("", {"A": "\0"}),
        shell("", {"A": "\ud800"}),
        shell("", {f"V{n}": "x" * 100_000 for n in range(30)}),
        shell("", {f"V{n}": "" for n in range(20_000)}),
    ):
        with pytest.raises(Malformed):
            wrong.encode()


async def test_a_place_may_be_deep(tmp_path: Path) -> None:
    directory = new_directory(tmp_path / "/".join(["a-rather-long-name"] * 10))
    assert len(str(directory.socket)) > 108
    with process(directory):
        assert (await ended(directory, shell("exit 1"))).report.exit_code == 1


async def test_only_its_owner_gets_at_a_place(tmp_path: Path) -> None:
    directory = new_directory(tmp_path / "p")
    assert directory.path.stat().st_mode & 0o777 == 0o700
    with process(directory):
        await waiting(directory)
        assert directory.socket_folder.stat().st_mode & 0o7777 == 0o700


async def test_a_link_in_place_of_the_socket_is_not_followed(tmp_path: Path) -> None:
    directory, elsewhere = new_directory(tmp_path / "p"), new_directory(tmp_path / "q")
    with process(elsewhere):
        await waiting(elsewhere)
        directory.socket.symlink_to(elsewhere.socket)
        with pytest.raises(Unavailable, match="is no socket"):
            await connect(directory, 0)


async def test_nobody_but_its_own_launcher_is_talked_to(tmp_path: Path) -> None:
    """Another listener receives neither data nor files."""
    directory, other = new_directory(tmp_path / "p"), new_directory(tmp_path / "q")
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())
        writer.close()

    async with await asyncio.start_unix_server(listen, directory.socket):
        with pytest.raises(Unavailable, match="no launcher was started there"):
            await connect(directory, 0)
        with process(other) as launcher:
            directory.write_launcher(process_of(launcher.pid))
            with pytest.raises(Unavailable, match="which is not its launcher"):
                await connect(directory, 0)
            me = process_of(os.getpid())
            directory.write_launcher(
                replace(me, started=me.started - 1)
            )  # the number belonged to another process before
            with pytest.raises(Unavailable, match="which is not its launcher"):
                await connect(directory, 0)
            assert not await request_exit(directory)
        directory.write_launcher(me)
        (await connect(directory, 0)).close()
        async with asyncio.timeout(10):
            while len(heard) < 5:
                await asyncio.sleep(0.001)
    assert heard == [b""] * 5


@pytest.mark.parametrize(
    "said", [b"started soon\n", b"report exit=0\n", b"report exit=-1\n", b"x" * 99_999]
)
async def test_a_socket_that_talks_nonsense_is_no_launcher(tmp_path: Path, said: bytes) -> None:
    directory = new_directory(tmp_path / "p")

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        writer.close()

    server = await asyncio.start_unix_server(talk, directory.socket)
    directory.write_launcher(process_of(os.getpid()))
    async with server, connected(directory) as launcher:
        with pytest.raises(Unavailable):
            await launcher.wait_for_report()


async def test_the_file_is_believed_and_not_the_socket(tmp_path: Path) -> None:
    """The report in the file is complete, that on the socket can be truncated."""
    directory = new_directory(tmp_path / "p")
    with process(directory):
        true = (await ended(directory, shell("exit 1"))).report
    lie = directory.report.read_bytes().replace(b"exit=1", b"exit=0")
    directory.socket.unlink()

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(lie)
        writer.close()

    server = await asyncio.start_unix_server(talk, directory.socket)
    directory.write_launcher(process_of(os.getpid()))
    async with server, connected(directory) as launcher:
        assert await launcher.wait_for_report() == true


async def test_half_a_report_is_none(tmp_path: Path) -> None:
    directory = new_directory(tmp_path / "p")
    assert directory.read_report() is None
    directory.report.write_bytes(b"report exit=0 sig")
    assert directory.read_report() is None


async def test_output_is_read_as_it_grows(tmp_path: Path) -> None:
    directory = new_directory(tmp_path / "p")
    over = asyncio.Event()
    reading = asyncio.create_task(read(directory, over))
    with process(directory):
        run = await ended(directory, shell("echo one; sleep 0.2; echo two"))
    over.set()
    assert await reading == run.output == b"one\ntwo\n"


def test_a_report_is_read_from_its_line() -> None:
    line = (
        "report exit=0 signal=9 started=1 ended=2 first_output=0 cpu=3 memory=4 cgroup_memory=5 "
        "io=6 network=7 kept=8 dropped=9 oom=1 halted=0 timed_out=1 words=a b=c words=d\n"
    )
    report = parse_report(line)
    assert report.error == "a b=c words=d"
    assert (report.shell_exit_code, report.out_of_memory, report.timed_out) == (137, True, True)
