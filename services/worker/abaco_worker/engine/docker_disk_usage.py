"""What a container has written to the disk: its layer, its volumes, the files mounted for it.

It is counted in blocks that are allocated, so a hole in a file is nothing. The program ``du`` walks
over the files: it is linear, follows no link, counts a file with several names once, and does not
mind files that go meanwhile. Nothing in memory (``/dev/shm``, other tmpfs) is counted here: that is
the memory limit's.

A worker that cannot see the engine's files (in a container of its own, or without root's rights)
asks the engine, which counts sizes: there, a hole counts.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from abaco_worker.domain.engine_errors import EngineFault

WALK_SECONDS = 30.0
"""How long one walk may take; ``du`` does a few hundred thousand files a second."""

WALKS_AT_ONCE = 4

KIBIBYTE = 1024
PATHS = ("HostsPath", "HostnamePath", "ResolvConfPath")


def folders(found: Mapping[str, Any]) -> Sequence[str]:
    """Where all that a container can write lies, from its inspection; the first is its layer.

    Nothing where the engine's driver has no folder for it.
    """
    layer = ((found.get("GraphDriver") or {}).get("Data") or {}).get("UpperDir")
    if not layer:
        return ()
    mounts = [
        mount["Source"]
        for mount in found.get("Mounts") or ()
        if mount.get("RW") and mount.get("Type") in ("bind", "volume") and mount.get("Source")
    ]
    return tuple(dict.fromkeys([layer, *mounts, *filter(None, map(found.get, PATHS))]))


def volumes(found: Mapping[str, Any]) -> frozenset[str]:
    """The names of a container's volumes that it can write to."""
    mounts = found.get("Mounts") or ()
    return frozenset(m["Name"] for m in mounts if m.get("RW") and m.get("Type") == "volume")


def visible(paths: Sequence[str]) -> bool:
    """Whether the layer can be walked over from here."""
    return bool(paths) and os.access(paths[0], os.R_OK | os.X_OK)


class Walks:
    """A few walks at a time."""

    def __init__(self) -> None:
        """None is under way."""
        self._turns = asyncio.Semaphore(WALKS_AT_ONCE)

    async def bytes_below(self, paths: Sequence[str]) -> int:
        """How many bytes are allocated to the files at and below some paths.

        Raises:
            EngineFault: it took too long.
        """
        async with self._turns:
            walk = await asyncio.create_subprocess_exec(
                *("nice", "du", "-s", "-k", "-x", "--", *paths),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            try:
                async with asyncio.timeout(WALK_SECONDS):
                    said, _ = await walk.communicate()
            except TimeoutError:
                raise EngineFault(f"{paths[0]} was not measured in {WALK_SECONDS:g} s") from None
            finally:
                with suppress(ProcessLookupError):
                    walk.kill()
                await walk.wait()
        return sum(int(line.split(b"\t")[0]) for line in said.splitlines()) * KIBIBYTE
