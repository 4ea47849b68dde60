"""The disk usage of a container: its layer, its volumes, and the files mounted for it.

Allocated blocks are counted, so a hole in a file counts as nothing. The program ``du`` walks over
the files: it is linear, follows no links, counts a file with several names once, and tolerates
files that are removed meanwhile. Memory (``/dev/shm``, other tmpfs) is not counted, because the
memory limit covers it.

A worker that cannot read the engine's files (in a container, or without root's rights) asks the
engine. The engine counts sizes, so there a hole counts.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from abaco_worker.domain.engine_errors import EngineFault

WALK_SECONDS = 30.0
"""The timeout of one walk; ``du`` visits a few hundred thousand files a second."""

MAX_WALKS = 4

KIBIBYTE = 1024
PATHS = ("HostsPath", "HostnamePath", "ResolvConfPath")


def folders(found: Mapping[str, Any]) -> Sequence[str]:
    """Return the paths that a container can write to, from its inspection; its layer is the first.

    They are empty if the storage driver has no folder for the layer.
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
    """Return the names of the volumes that a container can write to."""
    mounts = found.get("Mounts") or ()
    return frozenset(m["Name"] for m in mounts if m.get("RW") and m.get("Type") == "volume")


def visible(paths: Sequence[str]) -> bool:
    """Return whether this process can read the layer."""
    return bool(paths) and os.access(paths[0], os.R_OK | os.X_OK)


class DiskUsageWalker:
    """Measures paths, a few at a time."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(MAX_WALKS)

    async def bytes_below(self, paths: Sequence[str]) -> int:
        """Return the bytes allocated to the files at and below the paths.

        Raises:
            EngineFault: it took too long.
        """
        async with self._slots:
            walk = await asyncio.create_subprocess_exec(
                *("nice", "du", "-s", "-k", "-x", "--", *paths),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            try:
                async with asyncio.timeout(WALK_SECONDS):
                    output, _ = await walk.communicate()
            except TimeoutError:
                raise EngineFault(f"{paths[0]} was not measured in {WALK_SECONDS:g} s") from None
            finally:
                with suppress(ProcessLookupError):
                    walk.kill()
                await walk.wait()
        return sum(int(line.split(b"\t")[0]) for line in output.splitlines()) * KIBIBYTE
