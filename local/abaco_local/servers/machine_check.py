"""Checks for what this machine lacks: ``abaco up`` prints it and continues.

What it cannot continue without is an error elsewhere: in ``local/setup`` for Python and the C
library, in :mod:`abaco_local.servers.container_engine` for the engine.
``docs/reference/supported-machines.md`` lists all requirements.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PAGE = "docs/reference/supported-machines.md"
GIBIBYTE = 1024**3
MEMORY_BYTES = 2 * GIBIBYTE
DISK_BYTES = 2 * GIBIBYTE
LIMITS = {"MemoryLimit": "memory", "CpuCfsQuota": "processors", "PidsLimit": "processes"}
"""Names of control groups in the engine's ``/info``, and what cannot be limited without them."""


def shortcomings(folder: Path, info: Mapping[str, Any]) -> list[str]:
    """Return what this machine and its engine lack; ``folder`` is the data folder."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return [
        *host_shortcomings(memory, shutil.disk_usage(folder).free, folder),
        *engine_shortcomings(info),
    ]


def host_shortcomings(memory_bytes: int, free_bytes: int, folder: Path) -> list[str]:
    """Return what a machine lacks, from its memory and the free space on the disk of ``folder``."""
    found = []
    if memory_bytes < MEMORY_BYTES:
        found.append(f"machine     {_gib(memory_bytes)} of memory; {_gib(MEMORY_BYTES)} are needed")
    if free_bytes < DISK_BYTES:
        free, needed = _gib(free_bytes), _gib(DISK_BYTES)
        found.append(f"machine     {free} free on the disk of {folder}; {needed} are needed")
    return found


def engine_shortcomings(info: Mapping[str, Any]) -> list[str]:
    """Return what an engine lacks, from its ``/info``."""
    if not info:
        return []
    found = []
    if any("rootless" in option for option in info.get("SecurityOptions") or ()):
        found.append(f"engine      runs rootless, which is not supported; see {PAGE}")
    if info.get("OSType") not in (None, "linux"):
        found.append(f"engine      runs {info['OSType']} containers, not Linux ones; see {PAGE}")
    lacking = [what for name, what in LIMITS.items() if info.get(name) is False]
    if lacking:
        found.append(f"engine      cannot limit {', '.join(lacking)} of a container; see {PAGE}")
    return found


def _gib(count: int) -> str:
    return f"{count / GIBIBYTE:.1f} GiB"
