"""The circumstances of a run: figures without them mean nothing."""

import os
import platform
import re
from pathlib import Path
from typing import Any

import docker
import psutil


def description() -> dict[str, Any]:
    """What the figures depend on: cores, kernel, engine, how durable the log is."""
    api = docker.APIClient(version="auto", timeout=30)
    try:
        found = api.info()
    finally:
        api.close()
    return {
        "cores": os.cpu_count(),
        "load_at_start": round(os.getloadavg()[0], 2),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "docker": found["ServerVersion"],
        "storage_driver": found["Driver"],
        "cgroup": f"v{found.get('CgroupVersion', '1')}",
    }


def busy_seconds() -> float:
    """CPU time that all processors together have worked, since the start of the machine."""
    times = psutil.cpu_times()
    return times.user + times.nice + times.system + times.irq + times.softirq + times.steal


def sync_interval(configuration: Path) -> str:
    """When a NATS server of this configuration has what it acknowledged on disk."""
    found = re.search(r"sync_interval: *(\w+)", configuration.read_text())
    return found[1] if found else "the server's default"
