"""The worker process with a real log and a real engine."""

import hashlib
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

import builders as b
from abaco_jetstream import Connection, NatsHeartbeats
from abaco_proto import events as ev
from contract.engine_suite import MISSING
from deadlines import prompt
from integration.worker_images import docker_yard
from integration.worker_world import World, world_on
from servers import NatsServer


@pytest.fixture
async def world(nats_server: NatsServer, tmp_path: Path) -> AsyncGenerator[World, None]:
    async with world_on(nats_server.url, tmp_path, "cold") as world:
        yield world


async def test_a_worker_and_a_run(world: World) -> None:
    world.start(ABACO_NETWORK_MODE="bridge")
    await world.worker()
    [ready] = await world.seen(ev.WorkerReady)
    assert ready.image_digest.startswith("sha256:")
    assert ready.location == "unix:///var/run/docker.sock"
    # The usage of a cold run is known once it has lasted for some samples (usage_sampler.py).
    await world.send("echo out; echo err >&2; busybox env; busybox sleep 4; exit 7")
    [finished] = await world.seen(ev.ExecutionFinished)
    [started] = await world.seen(ev.ExecutionStarted)
    assert started.image_digest == ready.image_digest
    assert finished.exit_code == finished.final_state.exit_code == 7
    assert finished.final_state.status == "exited"
    assert 3_900 < finished.runtime_ms < 14_000
    assert finished.cpu_ns > 0
    output = await world.output(finished)
    assert b"out\n" in output
    assert b"err\n" in output
    assert b"_abaco_execution_id=foo_0_exc_0\n" in output
    assert finished.log_bytes == len(output)
    assert finished.log_sha256 == hashlib.sha256(output).hexdigest()
    await world.until_clean()


async def test_a_run_that_uses_too_much_memory_is_ended_by_its_limit(world: World) -> None:
    world.start()
    await world.worker(mem_limit=16 * 1024 * 1024)
    await world.send("exec busybox tail /dev/zero")
    [finished] = await world.seen(ev.ExecutionFinished)
    state = finished.final_state
    assert (finished.exit_code, state.ended_by, state.oom_killed) == (
        137,
        ev.EndedBy.MEM_LIMIT,
        True,
    )
    await world.until_clean()


async def test_open_files_are_limited_and_confinement_is_said(world: World) -> None:
    world.start(ABACO_CONTAINER_OPEN_FILES="4096")
    await world.worker()
    await world.send("ulimit -Sn; ulimit -Hn")
    [finished] = await world.seen(ev.ExecutionFinished)
    assert await world.output(finished) == b"4096\n4096\n"
    assert "containers are confined by" in world.said()


async def test_a_missing_image(world: World) -> None:
    world.start()
    await world.worker(image=MISSING)
    [failed] = await world.seen(ev.WorkerFailed)
    assert failed.reason.startswith(f"image {MISSING}: pull failed: ")
    assert "refused" in failed.reason


async def test_a_command_that_is_not_there(world: World) -> None:
    world.start()
    await world.worker(image=world.yard.unstartable)
    await world.send("")
    [finished] = await world.seen(ev.ExecutionFinished)
    assert finished.exit_code == 127
    assert "/nope" in finished.final_state.error
    await world.until_clean()


async def test_output_that_is_long_or_no_text(world: World) -> None:
    world.start(ABACO_MAX_LOG_BYTES="100000")
    await world.worker()
    await world.send(r"printf 'a\377\000b\n'; exit 0")
    await world.send("busybox seq 1 300000", 1)
    binary, long = await world.seen(ev.ExecutionFinished, 2)
    assert await world.output(binary) == "a\ufffd\0b\n".encode()
    assert not binary.log_truncated
    whole = "".join(f"{n}\n" for n in range(1, 300_001)).encode()
    mark = b"\n[abaco: output truncated at 100000 bytes]\n"
    assert long.log_truncated
    assert await world.output(long) == whole[:100_000] + mark
    assert long.log_bytes == 100_000 + len(mark)


async def test_endless_output_does_not_hold_up_the_container(world: World) -> None:
    world.start(ABACO_MAX_LOG_BYTES="1000")
    await world.worker()
    script = "busybox yes 0123456789 | busybox head -c 20000000; echo done >&2; exit 4"
    await world.send(script)
    [finished] = await world.seen(ev.ExecutionFinished)
    assert finished.exit_code == 4
    assert finished.log_truncated


async def test_a_worker_killed_in_a_run_goes_on_with_it(world: World) -> None:
    worker = world.start()
    await world.worker()
    await world.send("echo one; busybox sleep 3; echo two; exit 5")
    await world.until_recorded(b"one\n")
    worker.kill()
    [left] = world.containers()
    assert left["State"] == "running"
    world.start()
    [finished] = await world.seen(ev.ExecutionFinished)
    await world.until_clean()
    [started] = await world.seen(ev.ExecutionStarted)
    assert started.container_id == left["Id"]
    assert finished.exit_code == 5
    assert await world.output(finished) == b"one\ntwo\n"


async def test_a_run_that_ended_while_no_worker_was_there_is_reported(world: World) -> None:
    worker = world.start()
    await world.worker()
    await world.send("echo one; busybox sleep 0.5; echo two; exit 6")
    await world.until_recorded(b"one\n")
    worker.kill()

    async def ended() -> bool:
        return all(c["State"] == "exited" for c in world.containers())

    await world.until(ended)
    world.start()
    [finished] = await world.seen(ev.ExecutionFinished)
    assert finished.exit_code == 6
    assert await world.output(finished) == b"one\ntwo\n"
    await world.until_clean()


async def test_told_to_end_it_ends_at_once_and_leaves_the_container(world: World) -> None:
    worker = world.start()
    await world.worker()
    await world.send("echo one; busybox sleep 3; exit 0")
    await world.until_recorded(b"one\n")
    with prompt(2):
        assert worker.terminate() == 0
    assert [c["State"] for c in world.containers()] == ["running"]
    world.start()
    await world.seen(ev.ExecutionFinished)
    await world.until_clean()


async def test_a_log_that_goes_away_during_a_run(world: World, nats_server: NatsServer) -> None:
    world.start()
    await world.worker()
    await world.send("for n in 1 2 3 4 5 6 7 8; do echo $n; busybox sleep 0.5; done; exit 9")
    await world.until_recorded(b"1\n")
    nats_server.kill()
    nats_server.start()
    [finished] = await world.seen(ev.ExecutionFinished)
    assert finished.exit_code == 9
    assert await world.output(finished) == b"1\n2\n3\n4\n5\n6\n7\n8\n"
    await world.until_clean()
    assert len(await world.seen(ev.ExecutionStarted)) == 1


async def test_told_to_end_while_there_is_no_log(world: World, nats_server: NatsServer) -> None:
    worker = world.start()
    await world.worker()
    await world.seen(ev.WorkerReady)
    nats_server.kill()
    with prompt(2):
        assert worker.terminate() == 0


async def test_killed_again_and_again_it_reports_each_run_once(world: World) -> None:
    worker = world.start()
    sequence = await world.worker()
    for number in range(1, 4):
        await world.request(sequence, number)
    await world.seen(ev.WorkerReady, 4)
    for ordinal in range(12):
        script = f"echo {ordinal}; busybox sleep 0.{ordinal % 5}; exit {ordinal}"
        await world.send(script, ordinal, ordinal % 4)
    for count in (1, 4, 8):
        await world.seen(ev.ExecutionStarted, count)
        worker.kill()
        worker = world.start()
    found = await world.seen(ev.ExecutionFinished, 12)
    await world.until_clean()
    found = await world.seen(ev.ExecutionFinished, 12)
    assert sorted(e.exit_code for e in found) == list(range(12))
    assert len(await world.seen(ev.ExecutionStarted, 12)) == 12
    for finished in found:
        assert await world.output(finished) == b"%d\n" % finished.exit_code


async def test_containers_of_other_hosts_are_left_alone(world: World) -> None:
    with docker_yard() as other:
        bystander = World.__new__(World)
        bystander.__dict__.update(world.__dict__, yard=other)
        worker = bystander.start()
        await bystander.worker()
        await bystander.send("echo one; busybox sleep 30")
        await bystander.until_recorded(b"one\n")
        worker.kill()
        world.start()
        await world.append(b.requested(1, host_id=world.yard.host_id, actor_sequence=1))
        await world.seen(ev.WorkerReady, 2)
        assert [c["State"] for c in bystander.containers()] == ["running"]


async def test_heartbeats_reach_the_scheduler(world: World, nats_server: NatsServer) -> None:
    connection = Connection(nats_server.url, name="peer_pid")
    await connection.open()
    world.start(ABACO_HOST_CAPACITY="3", ABACO_HEARTBEAT_SECONDS="0.05")
    async for heartbeat in NatsHeartbeats(connection).listen():
        assert (heartbeat.host_id, heartbeat.capacity) == (world.yard.host_id, 3)
        break
    await connection.close()
