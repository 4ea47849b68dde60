"""Images made present as the pull policy says, each pulled once however many seats want it."""

import asyncio
import logging
import time
from collections import OrderedDict
from contextlib import suppress
from typing import TypeVar

from abaco_proto.errors import AbacoError
from abaco_worker.domain.containers import Image, PullProgress
from abaco_worker.domain.engine_errors import ImageMissing, ImageRefused
from abaco_worker.engine.engine_port import Engine
from abaco_worker.worker_settings import PullPolicy

logger = logging.getLogger(__name__)

T = TypeVar("T")

PROGRESS_SECONDS = 3.0

RECENT_SECONDS = 1.0
"""In a rush, this is how often it is asked what an image is."""

TELL_SECONDS = 1.0
"""How long the engine may take to tell what a name stands for before a container is used."""

REMEMBERED = 1000
"""How many images are remembered: the digests of all, the descriptions of those found just now."""

MEGABYTE = 1_000_000


class Images:
    """The images of one host."""

    def __init__(self, engine: Engine, policy: PullPolicy) -> None:
        """Nothing is known yet of what is there."""
        self._engine = engine
        self._policy = policy
        self._digests: OrderedDict[str, str] = OrderedDict()
        self._found: OrderedDict[str, tuple[float, Image]] = OrderedDict()
        self._pulls: dict[str, asyncio.Task[None]] = {}

    async def prepare(self, image: str) -> Image:
        """Have an image ready for a new seat.

        Raises:
            ImageRefused: it cannot be had; the text names it and says why.
        """
        if self._policy == "always":
            await self._pull(image)
        return await self.ensure(image)

    async def ensure(self, image: str) -> Image:
        """Have an image here, pulled only if it is missing.

        Raises:
            ImageRefused: as above.
        """
        try:
            return await self._find(image)
        except ImageMissing:
            if self._policy == "never":
                raise ImageRefused(
                    f"image {image}: not on this host, and the pull policy is never"
                ) from None
        await self._pull(image)
        try:
            return await self._find(image)
        except ImageMissing:
            raise ImageRefused(f"image {image}: pulled, and yet not there") from None

    async def recent(self, image: str) -> Image:
        """The same, as it was found a moment ago: somebody may have moved the name since.

        Raises:
            ImageRefused: as above.
        """
        when, found = self._found.get(image, (0.0, None))
        if found is None or time.monotonic() - when > RECENT_SECONDS:
            found = await self.ensure(image)
        return found

    async def moved(self, image: str, image_id: str) -> bool:
        """Whether a name stands for another image by now.

        Not where the engine does not tell in time, or knows the name no more: what was made of the
        image while it had the name can still be used.
        """
        if image == image_id or "@" in image:
            return False
        try:
            async with asyncio.timeout(TELL_SECONDS):
                return (await self._find(image)).image_id != image_id
        except (AbacoError, TimeoutError):
            return False

    async def of_digest(self, image: str, digest: str) -> str:
        """How the engine names the image that had this digest: its id, or the registry's digest.

        Raises:
            ImageRefused: it is not here any more, and cannot be pulled.
        """
        by_digest = f"{_repository(image)}@{digest}"
        for name in (digest, by_digest):
            with suppress(ImageMissing, ImageRefused):  # neither a digest nor a name of one
                await self._find(name)
                return name
        await self.ensure(by_digest)
        return by_digest

    async def digest(self, image: str, image_id: str) -> str:
        """The digest of the image a container was made of; its id where nothing better is known."""
        if image_id not in self._digests:
            try:
                await self._find(image)
            except (ImageMissing, ImageRefused):
                return image_id
        return self._digests.get(image_id, image_id)

    async def _find(self, image: str) -> Image:
        found = await self._engine.find_image(image)
        now = time.monotonic()
        _remember(self._digests, found.image_id, found.digest)
        _remember(self._found, image, (now, found))
        while now - next(iter(self._found.values()))[0] > RECENT_SECONDS:  # it can be large
            self._found.popitem(last=False)
        return found

    async def _pull(self, image: str) -> None:
        """Join the pull of this image that is under way, or begin one."""
        pull = self._pulls.get(image)
        if pull is None:
            pull = asyncio.create_task(self._engine.pull_image(image, Reporter(image)))
            self._pulls[image] = pull
            pull.add_done_callback(lambda _: self._pulls.pop(image))
        await asyncio.shield(pull)


def _remember(known: OrderedDict[str, T], key: str, value: T) -> None:
    """Note it as the newest, and forget the oldest beyond the bound."""
    known[key] = value
    known.move_to_end(key)
    if len(known) > REMEMBERED:
        known.popitem(last=False)


def _repository(image: str) -> str:
    """The name of an image without its tag and digest."""
    name = image.partition("@")[0]
    head, colon, tag = name.rpartition(":")
    return head if colon and "/" not in tag else name


class Reporter:
    """Logs how far a pull has come, every few seconds."""

    def __init__(self, image: str) -> None:
        """The pull of ``image`` begins now."""
        self._image = image
        self._due = time.monotonic() + PROGRESS_SECONDS
        logger.info("image %s: pulling", image)

    def __call__(self, progress: PullProgress) -> None:
        """Take note; may be called from any thread."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + PROGRESS_SECONDS
            logger.info("image %s: pulling, %s", self._image, describe(progress))


def describe(progress: PullProgress) -> str:
    """``2 of 5 layers, 12.3 of 40.1 MB``."""
    done, total = progress.done_bytes / MEGABYTE, progress.total_bytes / MEGABYTE
    return f"{progress.done_layers} of {progress.layers} layers, {done:.1f} of {total:.1f} MB"
