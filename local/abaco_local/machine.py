"""What this machine lacks: lines that ``abaco up`` prints, and goes on.

What it cannot go on without is a refusal where it is needed: ``local/setup`` for Python and the C
library, :mod:`abaco_local.engine` for the engine. ``docs/reference/supported-machines.md`` lists
all of them.
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
"""What an engine says of the control groups, and what it cannot limit without."""


def shortcomings(folder: Path, info: Mapping[str, Any]) -> list[str]:
    """What this machine and its engine lack; ``folder`` is where the data is."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return [*of_host(memory, shutil.disk_usage(folder).free, folder), *of_engine(info)]


def of_host(memory_bytes: int, free_bytes: int, folder: Path) -> list[str]:
    """What a machine with so much memory, and so much free on the disk of ``folder``, lacks."""
    found = []
    if memory_bytes < MEMORY_BYTES:
        found.append(f"machine     {_gib(memory_bytes)} of memory; {_gib(MEMORY_BYTES)} are needed")
    if free_bytes < DISK_BYTES:
        free, needed = _gib(free_bytes), _gib(DISK_BYTES)
        found.append(f"machine     {free} free on the disk of {folder}; {needed} are needed")
    return found


def of_engine(info: Mapping[str, Any]) -> list[str]:
    """What an engine lacks, by its own ``/info``."""
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
