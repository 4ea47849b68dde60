"""The image store: finds and pulls the images of one host, by the pull policy."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import TypeVar

import msgspec

from abaco_proto.errors import AbacoError
from abaco_worker.domain.engine_errors import ImageMissing, ImageRefused
from abaco_worker.domain.engine_values import Image, PullProgress
from abaco_worker.engine.engine_port import Engine
from abaco_worker.worker_settings import PullPolicy

logger = logging.getLogger(__name__)

T = TypeVar("T")

PROGRESS_SECONDS = 3.0

RECENT_SECONDS = 1.0
"""How long an image is used without asking the engine again."""

RESOLVE_SECONDS = 1.0
"""How long the engine may take to resolve a name before a sandbox is used."""

MAX_CACHED = 1000
"""The number of cached images: digests of all, descriptions of the recent ones, ids of names."""

MEGABYTE = 1_000_000


class Resolution(msgspec.Struct, frozen=True):
    """The engine's answer to which image a name refers to: its id, or empty if it is unknown.

    The engine was asked when the event ``sequence`` was in the log. So the answer holds for every
    message up to that one: if the name was moved before such a message was sent, the answer has it.
    """

    sequence: int
    image_id: asyncio.Task[str]


class ImageStore:
    """The images of one host.

    Concurrent pulls of an image are one. ``policy`` applies to workers that get ready; a run pulls
    an image only if it is missing.

    A name can move to another image at any time. A message runs what the name refers to when the
    message is accepted, or something newer. So the engine is asked for each message, unless it was
    asked when the message was in the log already, as for messages that wait behind one another.
    Resolutions are kept only while :meth:`changes` reports what moves, so that such messages get
    the new image, too.
    """

    def __init__(self, engine: Engine, policy: PullPolicy) -> None:
        self._engine = engine
        self._policy = policy
        self._digests: OrderedDict[str, str] = OrderedDict()
        self._recent: OrderedDict[str, tuple[float, Image]] = OrderedDict()
        self._pulls: dict[str, asyncio.Task[None]] = {}
        self._resolutions: OrderedDict[str, Resolution] = OrderedDict()
        self._followed = False

    async def prepare(self, image: str) -> Image:
        """Return the image for a new worker; with the policy ``always``, pull it first.

        Raises:
            ImageRefused: it cannot be pulled or used; the text names it and the cause.
        """
        if self._policy == "always":
            await self._pull(image)
        return await self.ensure(image)

    async def ensure(self, image: str) -> Image:
        """Return an image, after a pull if it is missing.

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
            raise ImageRefused(f"image {image}: the engine does not have it after a pull") from None

    async def recent(self, image: str) -> Image:
        """Return an image as :meth:`ensure`, or as it was up to a second ago.

        Raises:
            ImageRefused: as above.
        """
        when, found = self._recent.get(image, (0.0, None))
        if found is None or time.monotonic() - when > RECENT_SECONDS:
            found = await self.ensure(image)
        return found

    async def changes(self) -> AsyncGenerator[None, None]:
        """Yield as :meth:`Engine.image_changes`; no resolution from before a change is used then.

        Raises:
            EngineFault, Unavailable: the engine fails or is unavailable.
        """
        try:
            async with aclosing(self._engine.image_changes()) as changes:
                async for _ in changes:
                    self._resolutions.clear()
                    self._followed = True
                    yield None
        finally:
            self._resolutions.clear()
            self._followed = False

    def ask(self, image: str, accepted: int, newest: int) -> None:
        """Ask the engine which image a name refers to, unless that is known: see :meth:`has_moved`.

        A later call of that waits for the answer.
        """
        if "@" not in image:
            self._resolution(image, accepted, newest)

    async def has_moved(self, image: str, image_id: str, accepted: int, newest: int) -> bool:
        """Return whether a name refers to another image than when a message was accepted, or later.

        ``accepted`` is the sequence of the message, ``newest`` the highest sequence that is known
        to be in the log. False if the engine does not answer in time or does not know the name any
        more: a container that was made while the image had the name can still be used.
        """
        if image == image_id or "@" in image:
            return False
        found = await asyncio.shield(self._resolution(image, accepted, newest).image_id)
        return found not in ("", image_id)

    def _resolution(self, image: str, accepted: int, newest: int) -> Resolution:
        known = self._resolutions.get(image)
        if known is None or known.sequence < accepted:
            known = Resolution(newest, asyncio.create_task(self._resolve(image)))
            _cache(self._resolutions, image, known)
        return known

    async def _resolve(self, image: str) -> str:
        image_id = ""
        with suppress(AbacoError, TimeoutError):
            async with asyncio.timeout(RESOLVE_SECONDS):
                image_id = (await self._find(image)).image_id
        known = self._resolutions.get(image)
        own = known is not None and known.image_id is asyncio.current_task()
        if own and not (image_id and self._followed):
            del self._resolutions[image]
        return image_id

    async def find_by_digest(self, image: str, digest: str) -> str:
        """Return the engine's name of the image with this digest: its id, or ``<name>@<digest>``.

        Raises:
            ImageRefused: it is not on this host any more, and cannot be pulled.
        """
        by_digest = f"{_repository(image)}@{digest}"
        for name in (digest, by_digest):
            with suppress(ImageMissing, ImageRefused):  # neither a digest nor a name of one
                await self._find(name)
                return name
        await self.ensure(by_digest)
        return by_digest

    async def digest(self, image: str, image_id: str) -> str:
        """Return the digest of a container's image, or the image id if the digest is unknown."""
        if image_id not in self._digests:
            try:
                await self._find(image)
            except (ImageMissing, ImageRefused):
                return image_id
        return self._digests.get(image_id, image_id)

    async def _find(self, image: str) -> Image:
        found = await self._engine.find_image(image)
        now = time.monotonic()
        _cache(self._digests, found.image_id, found.digest)
        _cache(self._recent, image, (now, found))
        # Descriptions can be large: drop all that are not recent any more.
        while now - next(iter(self._recent.values()))[0] > RECENT_SECONDS:
            self._recent.popitem(last=False)
        return found

    async def _pull(self, image: str) -> None:
        """Pull an image, or wait for the pull that is running."""
        pull = self._pulls.get(image)
        if pull is None:
            pull = asyncio.create_task(self._engine.pull_image(image, PullLogger(image)))
            self._pulls[image] = pull
            pull.add_done_callback(lambda _: self._pulls.pop(image))
        await asyncio.shield(pull)
        self._resolutions.pop(image, None)


def _cache(cache: OrderedDict[str, T], key: str, value: T) -> None:
    """Add a value as the newest one, and drop the oldest beyond the bound."""
    cache[key] = value
    cache.move_to_end(key)
    if len(cache) > MAX_CACHED:
        cache.popitem(last=False)


def _repository(image: str) -> str:
    """Return the name of an image without its tag and digest."""
    name = image.partition("@")[0]
    head, colon, tag = name.rpartition(":")
    return head if colon and "/" not in tag else name


class PullLogger:
    """Logs the progress of a pull every few seconds."""

    def __init__(self, image: str) -> None:
        self._image = image
        self._due = time.monotonic() + PROGRESS_SECONDS
        logger.info("image %s: pulling", image)

    def __call__(self, progress: PullProgress) -> None:
        """Log the progress if it is due; may be called from any thread."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + PROGRESS_SECONDS
            logger.info("image %s: pulling, %s", self._image, describe(progress))


def describe(progress: PullProgress) -> str:
    """Return a progress as ``2 of 5 layers, 12.3 of 40.1 MB``."""
    done, total = progress.done_bytes / MEGABYTE, progress.total_bytes / MEGABYTE
    return f"{progress.done_layers} of {progress.layers} layers, {done:.1f} of {total:.1f} MB"
