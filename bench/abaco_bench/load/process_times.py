"""CPU time by part of the platform: its processes, their children, and the container engine."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress

import psutil

from abaco_bench.results.machine import busy_seconds

ENGINE = ("dockerd", "containerd")
WORKER, LAUNCHER, MACHINE = "worker", "launcher", "the whole machine"

Seconds = Mapping[str, float]


def measured(services: Mapping[str, int]) -> dict[str, float]:
    """CPU seconds so far, by part; ``services`` are pids by name.

    A process counts with the children that it has waited for. Everything below the worker that is
    not the worker itself is the launcher: the helper, launchers, and the programs that have ended.
    The engine's figures include what it does for others on this machine.
    """
    found: dict[str, float] = defaultdict(float)
    for name, pid in services.items():
        for process in _family(pid):
            part = LAUNCHER if name == WORKER and process.pid != pid else name
            found[part] += _seconds(process)
    for process in psutil.process_iter(["name"]):
        if process.info["name"] in ENGINE:
            found[process.info["name"]] += _seconds(process)
    found[MACHINE] = busy_seconds()
    return dict(found)


def per_execution(before: Seconds, after: Seconds, count: int) -> dict[str, float]:
    """Ms for each of ``count`` executions, by part.

    A part that has less than before has lost a process, and is at least what is left: 0.
    """
    return {
        name: max(seconds - before.get(name, 0.0), 0.0) * 1000 / count
        for name, seconds in after.items()
    }


def _family(pid: int) -> Iterator[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        first = psutil.Process(pid)
        yield first
        yield from first.children(recursive=True)


def _seconds(process: psutil.Process) -> float:
    with suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)
    return 0.0
