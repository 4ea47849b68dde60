"""A run equals a ``docker run`` of the image, in a sandbox and in a container of its own."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import docker
import pytest
from docker.types import Ulimit

import images
from abaco_proto import events as ev
from abaco_worker.worker_settings import WorkerSettings, open_files
from beside_docker_run import STATE, differences
from integration.worker_world import MODES, World, world_on
from servers import NatsServer

RECIPE = (
    "FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\n"
    'CMD ["/bin/sh", "-c", "eval \\"$MSG\\""]\n'
)
IMAGE = "abaco-test/process-1"
SHELL = images.WITH_SHELL + (
    "COPY passwd group /etc/\n"
    'RUN ["/bin/sh", "-c", "mkdir -m 1777 /tmp"]\n'
    'CMD ["/bin/sh", "-c", "eval \\"$MSG\\""]\n'
)
PASSWD = b"root:x:0:0:root:/root:/bin/sh\nanna:x:1000:1000:Anna:/home/anna:/bin/sh\n"
GROUP = b"root:x:0:\nanna:x:1000:\naudio:x:29:anna\n"
MEBIBYTE = 1024 * 1024


@pytest.fixture(params=MODES)
async def world(
    request: pytest.FixtureRequest, nats_server: NatsServer, tmp_path: Path
) -> AsyncGenerator[World, None]:
    async with world_on(nats_server.url, tmp_path, request.param) as world:
        yield world


async def output_of(world: World, script: str, **settings: str) -> tuple[str, int]:
    world.start(**settings)
    await world.worker(IMAGE)
    await world.send(script)
    [finished] = await world.seen(ev.ExecutionFinished)
    return (await world.output(finished)).decode(), finished.exit_code


def docker_run(script: str) -> str:
    """Run the same by the engine alone, with the same limits."""
    client = docker.APIClient(version="auto")
    files = open_files(WorkerSettings(), int(Path("/proc/sys/fs/nr_open").read_text()))
    config = client.create_host_config(
        network_mode="none",
        ulimits=[Ulimit(name="nofile", soft=files, hard=files)] if files else None,
        mem_limit=512 * MEBIBYTE,
        memswap_limit=512 * MEBIBYTE,
        nano_cpus=1_000_000_000,
        pids_limit=256,
        security_opt=["no-new-privileges"],
    )
    made = client.create_container(IMAGE, environment={"MSG": script}, host_config=config)
    try:
        client.start(made["Id"])
        client.wait(made["Id"], timeout=60)
        return client.logs(made["Id"]).decode()
    finally:
        client.remove_container(made["Id"], force=True)
        client.close()


@pytest.fixture(autouse=True)
def _image() -> None:
    images.build(IMAGE, SHELL, {"passwd": PASSWD, "group": GROUP})


async def test_the_program_is_process_1(world: World) -> None:
    script = (
        "echo $$; tr '\\0' ' ' </proc/1/cmdline | cut -c -12; echo to process 1 >/proc/1/fd/1; "
        "ls /proc >/l; grep -c '^[0-9]' /l; cut -d' ' -f 4-8 /proc/1/stat"
    )
    said, _ = await output_of(world, script)
    assert said.splitlines() == ["1", "/bin/sh -c e", "to process 1", "2", "0 1 1 0 -1"]


async def test_an_init_that_must_be_process_1_starts(world: World) -> None:
    """As s6-overlay's does."""
    init = 'if [ $$ -ne 1 ]; then echo "can only run as pid 1"; exit 100; fi; echo started; exit 7'
    assert await output_of(world, init) == ("started\n", 7)


async def test_orphans_are_process_1s(world: World) -> None:
    """A program that does not reap its children has zombies, as with ``docker run``."""
    script = (
        "mkfifo /tmp/end; "
        # The first exits when the shell, which would reap it, is no longer process 1.
        "(sh -c 'until grep -q cat /proc/1/comm; do :; done' &); "
        "(sh -c 'until grep -h -A4 State:.Z /proc/[0-9]*/status | grep -q PPid:.1$; do :; done; "
        "echo a zombie of process 1; : >/tmp/end' 2>/dev/null &); exec cat /tmp/end"
    )
    said, _ = await output_of(world, script, ABACO_MAX_RUN_SECONDS="20")
    assert said == docker_run(script) == "a zombie of process 1\n"


@pytest.mark.parametrize("user", ["", "anna"])
async def test_a_program_cannot_tell_it_from_docker_run(world: World, user: str) -> None:
    if user:
        recipe = f"{SHELL}USER {user}\nWORKDIR /home\n"
        await asyncio.to_thread(images.build, IMAGE, recipe, {"passwd": PASSWD, "group": GROUP})
    said, _ = await output_of(world, STATE)
    theirs = await asyncio.to_thread(docker_run, STATE)
    assert "CapBnd" in theirs
    assert differences(said, theirs) == []


async def test_a_halt_sends_the_stop_signal_of_the_image(world: World) -> None:
    image = "abaco-test/stops-by-int"
    await asyncio.to_thread(images.build, image, f"{RECIPE}STOPSIGNAL SIGINT\n", {})
    world.start(ABACO_HALT_GRACE_SECONDS="60")
    await world.worker(image)
    script = (
        "trap 'echo saved; exit 0' INT; trap '' TERM; echo on; while :; do busybox sleep 0.1; done"
    )
    await world.send(script)
    await world.until_recorded(b"on\n")
    await world.append(ev.ExecutionHaltRequested(actor_id="foo_0", execution_id="foo_0_exc_0"))
    [finished] = await world.seen(ev.ExecutionFinished)
    assert (await world.output(finished), finished.exit_code) == (b"on\nsaved\n", 0)
    assert finished.final_state.ended_by is ev.EndedBy.HALT
