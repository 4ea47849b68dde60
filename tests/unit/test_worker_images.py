import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager

import pytest

from abaco_worker.app.waiting import cancel_and_wait
from abaco_worker.domain.engine_errors import EngineFault, ImageRefused
from abaco_worker.domain.engine_values import Image, PullProgress
from abaco_worker.engine.image_store import RECENT_SECONDS, ImageStore, PullLogger, describe
from fake_engine import IMAGE, FakeEngine

REMOTE = "far/away"


@pytest.fixture
def engine() -> FakeEngine:
    engine = FakeEngine()
    engine.registry[REMOTE] = Image(image_id="sha256:9", digest="sha256:d9")
    return engine


async def test_what_is_there_is_not_pulled(engine: FakeEngine) -> None:
    assert (await ImageStore(engine, "missing").prepare(IMAGE)).digest == "sha256:d1"
    assert engine.pulls == []


async def test_what_is_missing_is_pulled(engine: FakeEngine) -> None:
    assert (await ImageStore(engine, "missing").prepare(REMOTE)).digest == "sha256:d9"
    assert engine.pulls == [REMOTE]


async def test_always_pulls_for_a_worker_but_not_for_a_run(engine: FakeEngine) -> None:
    images = ImageStore(engine, "always")
    await images.prepare(REMOTE)
    await images.prepare(REMOTE)
    await images.ensure(REMOTE)
    assert engine.pulls == [REMOTE, REMOTE]


async def test_never_does_not_pull(engine: FakeEngine) -> None:
    with pytest.raises(ImageRefused, match=f"image {REMOTE}: .*never"):
        await ImageStore(engine, "never").prepare(REMOTE)
    assert engine.pulls == []


async def test_pulls_of_one_image_at_one_time_are_one(engine: FakeEngine) -> None:
    engine.let_pull.clear()
    images = ImageStore(engine, "missing")
    workers = [asyncio.create_task(images.prepare(REMOTE)) for _ in range(5)]
    await asyncio.wait(workers, timeout=0.05)
    workers[0].cancel()
    engine.let_pull.set()
    found = await asyncio.gather(*workers[1:])
    assert {image.digest for image in found} == {"sha256:d9"}
    assert engine.pulls == [REMOTE]


async def test_a_refusal_reaches_all_who_wait_and_is_not_kept(engine: FakeEngine) -> None:
    images = ImageStore(engine, "missing")
    tries = [images.prepare("no/where") for _ in range(3)]
    errors = await asyncio.gather(*tries, return_exceptions=True)
    assert [type(error) for error in errors] == [ImageRefused] * 3
    engine.registry["no/where"] = Image(image_id="sha256:8", digest="sha256:d8")
    assert (await images.prepare("no/where")).digest == "sha256:d8"


async def test_the_digest_of_a_container_is_that_of_its_image(engine: FakeEngine) -> None:
    images = ImageStore(engine, "missing")
    assert await images.digest(IMAGE, "sha256:1") == "sha256:d1"
    assert await images.digest(IMAGE, "sha256:old") == "sha256:old"
    assert await images.digest("no/where", "sha256:x") == "sha256:x"


def test_progress_is_told_every_few_seconds(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    progress = PullProgress(done_layers=2, layers=5, done_bytes=12_345_678, total_bytes=40_100_000)
    assert describe(progress) == "2 of 5 layers, 12.3 of 40.1 MB"
    now = 100.0
    monkeypatch.setattr("abaco_worker.engine.image_store.time.monotonic", lambda: now)
    tell = PullLogger("x")
    for _ in range(100):
        now += 0.1
        tell(progress)
    assert len([r for r in caplog.records if "2 of 5" in r.message]) == 3


async def test_what_was_found_a_moment_ago_is_not_asked_for_again(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("abaco_worker.engine.image_store.time.monotonic", lambda: now)
    images = ImageStore(engine, "missing")
    first = await images.recent(IMAGE)
    engine.images[IMAGE] = Image(image_id="sha256:new", digest="sha256:d-new")
    assert await images.recent(IMAGE) == first
    now += RECENT_SECONDS + 0.1
    assert (await images.recent(IMAGE)).image_id == "sha256:new"


async def test_a_new_worker_sees_a_new_image_at_once_and_so_do_its_sandboxes(
    engine: FakeEngine,
) -> None:
    images = ImageStore(engine, "missing")
    await images.recent(IMAGE)
    engine.images[IMAGE] = Image(image_id="sha256:new", digest="sha256:d-new")
    assert (await images.prepare(IMAGE)).image_id == "sha256:new"
    assert (await images.recent(IMAGE)).image_id == "sha256:new"


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("far/away", "far/away"),
        ("far/away:1.2", "far/away"),
        ("host:5000/far/away", "host:5000/far/away"),
        ("host:5000/far/away:1", "host:5000/far/away"),
        ("far/away:1@sha256:d0", "far/away"),
    ],
)
async def test_an_image_of_then_is_found_by_id_or_by_the_digest_of_its_registry(
    engine: FakeEngine, name: str, repository: str
) -> None:
    images = ImageStore(engine, "missing")
    assert await images.find_by_digest(name, "sha256:1") == "sha256:1"
    by_digest = f"{repository}@sha256:d9"
    engine.registry[by_digest] = Image(image_id="sha256:9", digest="sha256:d9")
    assert await images.find_by_digest(name, "sha256:d9") == by_digest
    assert await images.find_by_digest(name, "sha256:d9") == by_digest
    assert engine.pulls == [by_digest]
    with pytest.raises(ImageRefused, match=f"image {repository}@sha256:gone: pull failed"):
        await images.find_by_digest(name, "sha256:gone")


async def test_what_is_remembered_of_images_is_bounded(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("abaco_worker.engine.image_store.MAX_CACHED", 10)
    now = 100.0
    monkeypatch.setattr("abaco_worker.engine.image_store.time.monotonic", lambda: now)
    images = ImageStore(engine, "missing")
    for number in range(30):
        name = f"far/away:{number}"
        engine.images[name] = Image(image_id=f"sha256:i{number}", digest=f"sha256:d{number}")
        await images.ensure(name)
    assert len(images._digests) == len(images._recent) == 10
    now += RECENT_SECONDS + 0.1
    await images.ensure(IMAGE)
    assert list(images._recent) == [IMAGE]


async def test_a_name_that_moved(engine: FakeEngine) -> None:
    images = ImageStore(engine, "missing")
    assert not await images.has_moved(IMAGE, "sha256:1", 1, 2)
    assert await images.has_moved(IMAGE, "sha256:old", 1, 2)
    assert not await images.has_moved("sha256:1", "sha256:1", 1, 2)
    digest = f"{IMAGE}@sha256:d1"
    assert not await images.has_moved(digest, "sha256:old", 1, 2), "a digest moves nowhere"
    assert not await images.has_moved("no/where", "sha256:old", 1, 2)
    engine.available = False
    assert not await images.has_moved(IMAGE, "sha256:old", 1, 2)


class CountingEngine(FakeEngine):
    """Counts how often it was asked for an image; holds answers back, or fails, on request."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.fails = False
        self.let_answer = asyncio.Event()
        self.let_answer.set()

    async def find_image(self, image: str) -> Image:
        self.asked += 1
        if self.fails:
            raise EngineFault("it is busy")
        found = await super().find_image(image)
        await self.let_answer.wait()
        return found


@pytest.fixture
async def counting() -> CountingEngine:
    return CountingEngine()


@asynccontextmanager
async def followed(images: ImageStore) -> AsyncGenerator[asyncio.Queue[None], None]:
    """Follow the changes in the block; each one is put into the queue."""
    changes: asyncio.Queue[None] = asyncio.Queue()

    async def follow() -> None:
        async with aclosing(images.changes()) as found:
            async for _ in found:
                changes.put_nowait(None)

    task = asyncio.create_task(follow())
    await changes.get()
    try:
        yield changes
    finally:
        await cancel_and_wait(task)


OTHER = Image(image_id="sha256:7", digest="sha256:d7")


async def test_messages_that_wait_behind_one_another_need_one_answer(
    counting: CountingEngine,
) -> None:
    images = ImageStore(counting, "missing")
    async with followed(images):
        for accepted in (5, 6, 9):
            assert not await images.has_moved(IMAGE, "sha256:1", accepted, 9)
        assert counting.asked == 1
        await images.has_moved(IMAGE, "sha256:1", 10, 11)
        assert counting.asked == 2, "it may have been moved before this message was sent"


async def test_a_change_ends_what_was_known(counting: CountingEngine) -> None:
    images = ImageStore(counting, "missing")
    async with followed(images) as changes:
        assert not await images.has_moved(IMAGE, "sha256:1", 5, 9)
        counting.images[IMAGE] = OTHER
        await changes.get()
        assert await images.has_moved(IMAGE, "sha256:1", 6, 9)


async def test_an_answer_from_before_a_change_is_not_kept(counting: CountingEngine) -> None:
    images = ImageStore(counting, "missing")
    async with followed(images) as changes:
        counting.let_answer.clear()
        images.ask(IMAGE, 5, 9)
        await asyncio.sleep(0)
        counting.images[IMAGE] = OTHER
        await changes.get()
        counting.let_answer.set()
        assert await images.has_moved(IMAGE, "sha256:1", 6, 9)


async def test_nothing_is_kept_while_changes_are_not_reported(counting: CountingEngine) -> None:
    images = ImageStore(counting, "missing")
    async with followed(images):
        await images.has_moved(IMAGE, "sha256:1", 5, 9)
    counting.images[IMAGE] = OTHER
    assert await images.has_moved(IMAGE, "sha256:1", 5, 9), "the engine may have gone away"
    assert counting.asked == 2
    await images.has_moved(IMAGE, "sha256:1", 5, 9)
    assert counting.asked == 3


async def test_an_answer_that_is_asked_for_ahead_is_the_only_one(counting: CountingEngine) -> None:
    images = ImageStore(counting, "missing")
    images.ask(IMAGE, 5, 9)
    assert not await images.has_moved(IMAGE, "sha256:1", 5, 9)
    images.ask(f"{IMAGE}@sha256:d1", 5, 9)
    assert counting.asked == 1


async def test_no_answer_is_not_kept(counting: CountingEngine) -> None:
    images = ImageStore(counting, "missing")
    async with followed(images):
        counting.fails = True
        assert not await images.has_moved(IMAGE, "sha256:old", 5, 9)
        counting.fails = False
        assert await images.has_moved(IMAGE, "sha256:old", 5, 9)


async def test_a_pull_ends_what_was_known(counting: CountingEngine) -> None:
    images = ImageStore(counting, "always")
    counting.registry[IMAGE] = OTHER
    async with followed(images):
        assert not await images.has_moved(IMAGE, "sha256:1", 5, 9)
        await images.prepare(IMAGE)
        assert await images.has_moved(IMAGE, "sha256:1", 5, 9)
