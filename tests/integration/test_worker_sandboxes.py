"""The worker with its launcher and a real engine: hostile images and programs."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

import builders as b
import images
from abaco_proto import events as ev
from integration.worker_world import World, world_on
from sandbox_stage import build_image
from servers import NatsServer

MEASURED = "abaco-test/measured"
SHELL = "FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\n"
MEBIBYTE = 1024 * 1024


@pytest.fixture(params=["sandbox", "container"])
def isolation(request: pytest.FixtureRequest) -> str:
    """What each message gets."""
    return str(request.param)


@pytest.fixture
async def world(
    nats_server: NatsServer, tmp_path: Path, isolation: str
) -> AsyncGenerator[World, None]:
    async with world_on(nats_server.url, tmp_path, isolation) as world:
        yield world


@pytest.fixture(scope="module", autouse=True)
def _measured() -> None:
    build_image(MEASURED, 'CMD ["/bin/sh", "-c", "eval \\"$MSG\\""]\n')


async def finished(world: World, count: int) -> dict[int, ev.ExecutionFinished]:
    """Return the finished runs by ordinal."""
    found = await world.seen(ev.ExecutionFinished, count)
    return {int(event.execution_id.rpartition("_")[2]): event for event in found}


async def outputs(world: World, count: int) -> dict[int, str]:
    ends = await finished(world, count)
    return {n: (await world.output(event)).decode() for n, event in ends.items()}


# -- images


IMAGES: Mapping[str, tuple[str, int, str]] = {
    "exec-form": (SHELL + 'CMD ["/bin/sh", "-c", "echo exec $MSG"]\n', 0, "exec hello\n"),
    "shell-form": (SHELL + "CMD echo shell $MSG\n", 0, "shell hello\n"),
    "entrypoint": (
        SHELL + 'ENTRYPOINT ["/bin/busybox", "echo"]\nCMD ["with", "words"]\n',
        0,
        "with words\n",
    ),
    "user-name": (
        SHELL + "COPY passwd /etc/passwd\nUSER anna\nCMD busybox id -u; busybox id -g\n",
        0,
        "1234\n56\n",
    ),
    "user-number": (SHELL + "USER 4242:43\nCMD busybox id -u; busybox id -g\n", 0, "4242\n43\n"),
    "workdir": (SHELL + "WORKDIR /not/there/yet\nCMD busybox pwd\n", 0, "/not/there/yet\n"),
    "scratch": ('FROM scratch\nCOPY busybox /echo\nCMD ["/echo", "alone"]\n', 0, "alone\n"),
    "no-command": ("FROM scratch\nCOPY busybox /bin/busybox\n", 127, ""),
    "missing": ('FROM scratch\nCOPY busybox /bin/busybox\nCMD ["/nope"]\n', 127, ""),
    "not-executable": (SHELL + 'CMD ["/bin"]\n', 126, ""),
}
WORDS = {
    "no-command": "no command specified",
    "missing": "/nope",
    "not-executable": "ermission denied",
}


async def test_images_of_all_kinds(world: World) -> None:
    passwd = b"root:x:0:0:root:/root:/bin/sh\nanna:x:1234:56:Anna:/:/bin/sh\n"
    for at, (name, (recipe, _, _)) in enumerate(IMAGES.items()):
        await asyncio.to_thread(
            images.build, f"abaco-test/image-{name}", recipe, {"passwd": passwd}
        )
        actor_id = f"image{at}_0"
        sequence = await world.append(b.registered(actor_id, image=f"abaco-test/image-{name}"))
        host = {"host_id": world.yard.host_id, "actor_sequence": sequence}
        await world.append(b.requested(0, actor_id, warm=False, **host))
        message = await world.append(b.received(0, actor_id, message="hello"))
        await world.append(b.assigned(0, actor_id, message_sequence=message, **host))
    world.start()
    ends = {e.actor_id: e for e in await world.seen(ev.ExecutionFinished, len(IMAGES))}
    for at, (name, (_, exit_code, output)) in enumerate(IMAGES.items()):
        end = ends[f"image{at}_0"]
        assert (end.exit_code, (await world.output(end)).decode()) == (exit_code, output), name
        assert WORDS.get(name, "") in end.final_state.error, name


# -- programs


SCRIPTS: Mapping[str, tuple[str, int, str | None]] = {
    "exit codes": ("exit 42", 42, ""),
    "the last exit code": ("exit 255", 255, ""),
    "a signal": ("busybox sh -c 'kill -TERM $$'; exit $?", 128 + 15, None),
    "a crash": ("busybox sh -c 'kill -SEGV $$'; exit $?", 128 + 11, None),
    "a signal to itself is ignored by process 1": ("kill -TERM $$; kill -KILL $$; exit 4", 4, ""),
    "no output, at once": ("exit 0", 0, ""),
    "out of memory": ("exec busybox tail /dev/zero", 137, ""),
    "a fork bomb": ("bomb() { bomb | bomb & }; bomb; busybox sleep 1; exit 5", 0, None),
    "a grandchild holds the output": ("busybox sleep 300 & echo up", 0, "up\n"),
    "a daemon": (
        "busybox setsid busybox sleep 300 </dev/null >/dev/null 2>&1 & echo up",
        0,
        "up\n",
    ),
    "bytes that are no text": (r"printf 'a\377\000b'", 0, None),
    "the next run": ("echo alive", 0, "alive\n"),
}


async def test_programs_of_all_kinds(world: World) -> None:
    world.start(ABACO_CONTAINER_PROCESSES="40")
    sequence = await world.worker(mem_limit=32 * MEBIBYTE)
    await world.request(sequence, 1)
    for ordinal, (script, _, _) in enumerate(SCRIPTS.values()):
        await world.send(script, ordinal, ordinal % 2)
    ends = await finished(world, len(SCRIPTS))
    for ordinal, (name, (_, exit_code, output)) in enumerate(SCRIPTS.items()):
        end = ends[ordinal]
        if name == "a fork bomb":
            assert b"can't fork" in await world.output(end)
            continue
        assert end.exit_code == exit_code, name
        assert end.runtime_ms > 0, name
        if output is not None:
            assert (await world.output(end)).decode() == output, name
    by_name = dict(zip(SCRIPTS, (ends[n] for n in range(len(SCRIPTS))), strict=True))
    oom = by_name["out of memory"].final_state
    assert (oom.ended_by, oom.oom_killed) == (ev.EndedBy.MEM_LIMIT, True)
    assert "mem_limit" in oom.error
    assert oom.signal == 9
    assert await world.output(by_name["bytes that are no text"]) == b"a\xff\0b"
    await world.until_clean(waiting=2)


async def test_a_message_of_the_longest_possible_length_arrives_as_it_is(world: World) -> None:
    recipe = SHELL + "CMD printf '%s\\n' \"$MSG\"\n"
    await asyncio.to_thread(images.build, "abaco-test/says", recipe, {})
    every = "".join(map(chr, range(1, 256))) + "'\"\\\n$(nothing)`"
    message = every + "x" * (131_067 - len(every.encode()))
    world.start()
    await world.worker("abaco-test/says")
    await world.send(message)
    [end] = await world.seen(ev.ExecutionFinished)
    assert await world.output(end) == message.encode() + b"\n"


async def test_a_gigabyte_of_output_is_cut_off_and_the_worker_stays_small(world: World) -> None:
    worker = world.start()
    await world.worker()
    await world.send("echo small")
    await world.seen(ev.ExecutionFinished)
    process = psutil.Process(worker.pid)
    before = process.memory_info().rss
    await world.send("busybox yes 0123456789abcdef | busybox head -c 1000000000; exit 4", 1)
    end = (await finished(world, 2))[1]
    output = await world.output(end)
    assert end.exit_code == 4
    assert end.log_truncated
    assert output.endswith(b"\n[abaco: output truncated at 1048576 bytes]\n")
    assert (end.log_bytes, end.log_sha256) == (len(output), hashlib.sha256(output).hexdigest())
    assert process.memory_info().rss - before < 32 * MEBIBYTE


async def test_a_run_that_ignores_its_end_is_killed(world: World) -> None:
    world.start(ABACO_HALT_GRACE_SECONDS="0.3")
    sequence = await world.worker(max_run_seconds=0.5)
    await world.request(sequence, 1)
    deaf = "trap '' TERM; while :; do busybox sleep 0.05; done"
    await world.send(deaf)
    [timed_out] = await world.seen(ev.ExecutionFinished)
    assert timed_out.exit_code == 137
    assert timed_out.final_state.ended_by is ev.EndedBy.MAX_RUN_SECONDS
    assert timed_out.runtime_ms > 700


async def test_a_disk_that_is_filled_ends_the_run_and_not_the_host(world: World) -> None:
    world.start()
    sequence = await world.worker(max_disk_bytes=3 * MEBIBYTE)
    await world.request(sequence, 1)
    one = "while :; do busybox dd if=/dev/zero bs=1M count=1 >>/one; busybox sleep 0.3; done"
    await world.send(one, 0, 0)
    many = "n=0; while :; do busybox dd if=/dev/zero of=/f$n bs=1M count=1; n=$((n+1)); "
    await world.send(many + "busybox sleep 0.3; done", 1, 1)
    for end in (await finished(world, 2)).values():
        assert end.final_state.ended_by is ev.EndedBy.MAX_DISK_BYTES
        assert "max_disk_bytes" in end.final_state.error


async def test_statistics_are_of_this_run_alone(world: World) -> None:
    world.start()
    await world.worker(image=MEASURED, mem_limit=256 * MEBIBYTE)
    scripts = [
        "exit 0",
        "exec probe spin 200",
        "exec probe touch 50",
        "exec busybox dd if=/dev/zero of=/file bs=1M count=20 conv=fsync 2>/dev/null",
        "exit 0",
    ]
    for ordinal, script in enumerate(scripts):
        await world.send(script, ordinal)
    ends = await finished(world, len(scripts))
    idle, spun, touched, written, after = (ends[ordinal] for ordinal in range(len(scripts)))
    assert spun.cpu_ns - idle.cpu_ns == pytest.approx(200e6, rel=0.05)
    assert touched.memory_bytes - idle.memory_bytes == pytest.approx(50 * MEBIBYTE, rel=0.05)
    assert written.io_bytes - idle.io_bytes == pytest.approx(20 * MEBIBYTE, rel=0.05)
    assert after.cpu_ns < 50e6
    assert after.memory_bytes < 10 * MEBIBYTE
    assert after.io_bytes < MEBIBYTE
    assert after.runtime_ms > 0


async def test_every_run_that_writes_output_has_io(world: World) -> None:
    """Short runs, on a host with a warm page cache."""
    world.start()
    sequence = await world.worker()
    await world.request(sequence, 1)
    for ordinal in range(20):
        await world.send("echo hello", ordinal, ordinal % 2)
    ends = await finished(world, 20)
    assert [end.io_bytes >= len("hello\n") for end in ends.values()] == [True] * 20


async def test_bytes_over_the_network_are_counted(world: World) -> None:
    world.start(ABACO_NETWORK_MODE="bridge")
    await world.worker()
    gateway = "$(busybox ip route | busybox sed -n 's/^default via \\([^ ]*\\).*/\\1/p')"
    await world.send(f"busybox ping -q -c 5 -i 0.2 -s 10000 {gateway}")
    [end] = await world.seen(ev.ExecutionFinished)
    fragments = 7  # of a ping, each with the headers of Ethernet and IP
    sent = 5 * (10_000 + 8 + fragments * (14 + 20))
    assert end.network_bytes == pytest.approx(2 * sent, rel=0.05)  # and the answers
    assert end.io_bytes >= end.network_bytes


# -- isolation


async def test_nothing_of_one_run_is_there_in_the_next(world: World) -> None:
    world.start()
    sequence = await world.worker(default_environment={"OF": "actor"})
    leave = "echo secret >/file; echo secret >/dev/shm/segment; export LEFT=secret; "
    await world.send(leave + "busybox setsid busybox sleep 301 & echo $OF; exit 0")
    look = "busybox ls /file /dev/shm; busybox ps | busybox grep -c 'sleep 30[1]'; echo [$LEFT]"
    await world.send(look, 1)
    said = await outputs(world, 2)
    assert said[0] == "actor\n"
    assert "secret" not in said[1]
    assert "segment" not in said[1]
    assert said[1].endswith("0\n[]\n")
    await world.until_clean(waiting=1)
    [waits] = world.waiting()
    environment, labels = world.inside(waits["Id"])
    assert not any(word in str((environment, labels)) for word in ("secret", "MSG", "OF=", "exc_"))
    updated = b.updated(revision=1, image=world.yard.image, mem_limit=64 * MEBIBYTE)
    later = await world.append(updated)
    await world.send("echo later", 2, actor_sequence=later)
    await finished(world, 3)
    starts = await world.seen(ev.ExecutionStarted, 3)
    assert starts[2].container_id != waits["Id"]
    assert sequence < later


async def test_runs_killed_with_their_worker_are_all_reported_once(world: World) -> None:
    """The worker process is killed repeatedly while four workers run twelve messages."""
    worker = world.start()
    sequence = await world.worker()
    for number in range(1, 4):
        await world.request(sequence, number)
    await world.seen(ev.WorkerReady, 4)
    for ordinal in range(12):
        script = f"echo {ordinal}; busybox sleep 0.{ordinal % 5}; echo done; exit {ordinal}"
        await world.send(script, ordinal, ordinal % 4)
    for count in (1, 3, 5, 7, 9):
        await world.seen(ev.ExecutionStarted, count)
        worker.kill()
        worker = world.start()
    await world.seen(ev.ExecutionFinished, 12)
    await world.until_clean(waiting=4)
    found = await world.seen(ev.ExecutionFinished, 12)
    assert sorted(e.exit_code for e in found) == list(range(12))
    assert len(await world.seen(ev.ExecutionStarted, 12)) == 12
    for end in found:
        assert await world.output(end) == b"%d\ndone\n" % end.exit_code


def test_what_the_suite_calls_waiting(tmp_path: Path) -> None:
    """``World.waiting`` does not return a used sandbox."""
    world: Any = World.__new__(World)
    world._file = tmp_path / "worker.log"
    (tmp_path / "worker" / "used").mkdir(parents=True)
    (tmp_path / "worker" / "used" / "assignment").touch()
    (tmp_path / "worker" / "fresh").mkdir()
    world.containers = lambda: [{"Names": ["/used"]}, {"Names": ["/fresh"]}, {"Names": ["/other"]}]
    assert world.waiting() == [{"Names": ["/fresh"]}]
