"""The contract of every ``Engine``. Fixtures: ``engine``, and ``yard`` with its images."""

import asyncio
import itertools
import time
from contextlib import aclosing
from typing import Protocol

import pytest

from abaco_worker.domain.engine_errors import (
    CannotStart,
    ContainerMissing,
    ImageMissing,
    ImageRefused,
)
from abaco_worker.domain.engine_values import CONFINEMENTS, ContainerSpec, PullProgress
from abaco_worker.engine.engine_port import Engine
from deadlines import LIMIT_SECONDS
from fake_engine import Program

MISSING = "127.0.0.1:1/nope/nope"
OWNER = "abaco.host_id"

_numbers = itertools.count()


class Yard(Protocol):
    """The images of a suite, and the labels of its containers."""

    image: str
    unstartable: str
    host_id: str

    def message(self, program: Program) -> str:
        """Return a program that the image understands."""
        ...


def spec_of(yard: Yard, program: Program | None = None, **changes: object) -> ContainerSpec:
    values: dict[str, object] = {
        "name": f"{yard.host_id}-{next(_numbers)}",
        "image": yard.image,
        "environment": {"MSG": yard.message(program or Program()), "WHO": "world"},
        "labels": {OWNER: yard.host_id},
        "memory_bytes": 64 * 1024 * 1024,
        "cpus": 1.0,
        "processes": 32,
        "network_mode": "none",
        "kept_output_bytes": 3 * 1024 * 1024,
        **changes,
    }
    return ContainerSpec(**values)  # type: ignore[arg-type]


async def started(engine: Engine, spec: ContainerSpec) -> str:
    container = await engine.create(spec)
    await engine.start(container.container_id)
    return container.container_id


async def read(engine: Engine, container_id: str, *, follow: bool) -> bytes:
    pieces = [piece async for piece in engine.output(container_id, follow=follow)]
    return b"".join(pieces)


class EngineSuite:
    async def test_an_image_is_found_with_its_digest(self, engine: Engine, yard: Yard) -> None:
        image = await engine.find_image(yard.image)
        assert image.image_id.startswith("sha256:")
        assert image.digest.startswith("sha256:")

    async def test_an_image_that_is_not_there_is_missing(self, engine: Engine) -> None:
        with pytest.raises(ImageMissing):
            await engine.find_image(MISSING)

    async def test_what_names_no_image_is_refused(self, engine: Engine) -> None:
        with pytest.raises(ImageRefused, match="image no image"):
            await engine.find_image("no image")

    async def test_a_pull_that_fails_names_the_image_and_why(self, engine: Engine) -> None:
        seen: list[PullProgress] = []
        with pytest.raises(ImageRefused, match=f"image {MISSING}: pull failed: .+"):
            await engine.pull_image(MISSING, seen.append)

    async def test_what_confines_containers_is_known(self, engine: Engine) -> None:
        assert await engine.confinements() <= {*CONFINEMENTS}

    async def test_a_new_container_is_fresh(self, engine: Engine, yard: Yard) -> None:
        container = await engine.create(spec_of(yard))
        assert container.never_started
        assert not container.ended
        found = await engine.inspect(container.container_id)
        assert found.never_started
        assert found.labels[OWNER] == yard.host_id

    async def test_a_name_is_one_container(self, engine: Engine, yard: Yard) -> None:
        spec = spec_of(yard, Program(exit_code=3))
        container_id = await started(engine, spec)
        await engine.wait(container_id, 10)
        again = await engine.create(spec)
        assert again.container_id == container_id
        assert again.ended
        assert again.exit_code == 3

    async def test_no_container_of_a_missing_image(self, engine: Engine, yard: Yard) -> None:
        with pytest.raises(ImageMissing):
            await engine.create(spec_of(yard, image=MISSING))

    async def test_a_container_of_an_image_by_its_id(self, engine: Engine, yard: Yard) -> None:
        image = await engine.find_image(yard.image)
        container = await engine.create(spec_of(yard, image=image.image_id))
        assert (await engine.inspect(container.container_id)).image_id == image.image_id

    @pytest.mark.parametrize("exit_code", [0, 3, 255])
    async def test_a_run_ends_with_its_exit_code(
        self, engine: Engine, yard: Yard, exit_code: int
    ) -> None:
        container_id = await started(engine, spec_of(yard, Program(exit_code=exit_code)))
        container = await engine.wait(container_id, 10)
        assert container.ended
        assert container.exit_code == exit_code
        assert container.started_at.startswith("20")
        assert container.finished_at.startswith("20")
        assert not container.oom_killed
        assert container.image_id == (await engine.find_image(yard.image)).image_id

    async def test_a_command_that_is_not_there_cannot_start(
        self, engine: Engine, yard: Yard
    ) -> None:
        container = await engine.create(spec_of(yard, image=yard.unstartable))
        for _ in range(2):
            with pytest.raises(CannotStart, match="/nope") as refusal:
                await engine.start(container.container_id)
            assert refusal.value.exit_code == 127
            assert (await engine.inspect(container.container_id)).never_started

    async def test_output_is_whole_once_the_container_ended(
        self, engine: Engine, yard: Yard
    ) -> None:
        program = Program(prints="a\0bü\n", lines=300_000)
        container_id = await started(engine, spec_of(yard, program))
        expected = program.prints + "".join(f"{n}\n" for n in range(1, program.lines + 1))
        assert (await engine.wait(container_id, 30)).ended
        output = await read(engine, container_id, follow=False)
        assert output == expected.encode()

    async def test_followed_output_is_a_beginning_of_the_whole(
        self, engine: Engine, yard: Yard
    ) -> None:
        container_id = await started(engine, spec_of(yard, Program(lines=5000)))
        followed = await read(engine, container_id, follow=True)
        assert (await engine.wait(container_id, 10)).ended
        assert (await read(engine, container_id, follow=False)).startswith(followed)

    async def test_output_comes_while_the_container_runs(self, engine: Engine, yard: Yard) -> None:
        container_id = await started(engine, spec_of(yard, Program(prints="hi\n", forever=True)))
        async with (
            asyncio.timeout(LIMIT_SECONDS),
            aclosing(engine.output(container_id, follow=True)) as o,
        ):
            assert await anext(o) == b"hi\n"
        assert not (await engine.inspect(container_id)).ended

    async def test_reading_on_can_be_given_up(self, engine: Engine, yard: Yard) -> None:
        container_id = await started(engine, spec_of(yard, Program(forever=True)))
        reading = asyncio.create_task(read(engine, container_id, follow=True))
        await asyncio.wait({reading}, timeout=0.2)
        reading.cancel()
        async with asyncio.timeout(LIMIT_SECONDS):
            await asyncio.wait({reading})
        assert reading.cancelled()

    async def test_the_environment_arrives(self, engine: Engine, yard: Yard) -> None:
        container_id = await started(engine, spec_of(yard, Program(echoes="WHO")))
        await engine.wait(container_id, 10)
        assert await read(engine, container_id, follow=False) == b"world"

    async def test_waiting_has_an_end(self, engine: Engine, yard: Yard) -> None:
        container_id = await started(engine, spec_of(yard, Program(forever=True)))
        async with asyncio.timeout(LIMIT_SECONDS):
            container = await engine.wait(container_id, 0.2)
        assert container.status == "running"

    async def test_a_running_container_uses_something(self, engine: Engine, yard: Yard) -> None:
        container_id = await started(engine, spec_of(yard, Program(forever=True)))
        assert (await engine.usage(container_id)).cpu_ns > 0

    async def test_a_container_without_a_network_is_connected_to_nothing(
        self, engine: Engine, yard: Yard
    ) -> None:
        container_id = await started(engine, spec_of(yard, Program(forever=True)))
        assert await engine.endpoint(container_id) is None
        with pytest.raises(ContainerMissing):
            await engine.endpoint(f"{yard.host_id}-nobody")

    async def test_a_removal_waits_for_a_program_that_is_about_to_end(
        self, engine: Engine, yard: Yard
    ) -> None:
        """It is killed after its time, and not before."""
        container_id = await started(engine, spec_of(yard, Program(forever=True)))
        begun = time.monotonic()
        await engine.remove(container_id, exit_seconds=1.0)
        assert time.monotonic() - begun > 0.9
        with pytest.raises(ContainerMissing):
            await engine.inspect(container_id)

    async def test_a_removal_waits_no_longer_than_it_must(self, engine: Engine, yard: Yard) -> None:
        container_id = await started(engine, spec_of(yard, Program()))
        async with asyncio.timeout(LIMIT_SECONDS):
            await engine.remove(container_id, exit_seconds=600.0)
            await engine.remove(container_id, exit_seconds=600.0)
        with pytest.raises(ContainerMissing):
            await engine.inspect(container_id)

    async def test_removal_kills_and_can_be_repeated(self, engine: Engine, yard: Yard) -> None:
        spec = spec_of(yard, Program(forever=True))
        container_id = await started(engine, spec)
        await engine.remove(spec.name)
        await engine.remove(spec.name)
        await engine.remove(container_id)
        with pytest.raises(ContainerMissing):
            await engine.inspect(container_id)
        with pytest.raises(ContainerMissing):
            await engine.start(container_id)
        with pytest.raises(ContainerMissing):
            await engine.wait(container_id, 1)
        with pytest.raises(ContainerMissing):
            await read(engine, container_id, follow=True)

    async def test_containers_are_found_by_label(self, engine: Engine, yard: Yard) -> None:
        mine = await engine.create(spec_of(yard, labels={OWNER: yard.host_id, "a": "1"}))
        other = await engine.create(spec_of(yard, labels={OWNER: f"{yard.host_id}-x"}))
        found = {c.container_id: c.labels for c in await engine.labelled(OWNER, yard.host_id)}
        assert found[mine.container_id]["a"] == "1"
        assert other.container_id not in found
        await engine.remove(other.container_id)
