"""Sandboxes a second in containers that stay, beside docker run and the kernel's own part.

    python bench/sandboxes.py [--turns N] [--seconds S] [--docker-runs N]

A sandbox runs ``/bin/true`` as root, with a control group of its own, in the container's network.
The floor is a C loop of the launcher's own steps (``sandbox_floor.c``), without requests, output
and reports. All are measured in turns on the same machine. It needs root, as the launcher does.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

from abaco_bench.baselines.kernel_floor import KernelFloor
from abaco_bench.results import machine, report
from abaco_bench.results.figures import Figure, Ratio, median, spread
from abaco_bench.results.picture import Panel, draw
from abaco_bench.results.progress import say
from sandbox_stage import IMAGE, Slot, slot

LEVELS = (1, 2)
SANDBOX, FLOOR, DOCKER = "sandbox", "floor", "docker run"
LIMITS = {
    SANDBOX: "the kernel: namespaces, mounts, the filter and the exit of each; and this client",
    FLOOR: "the kernel alone",
    DOCKER: "dockerd, containerd and runc",
}
TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
Samples = dict[str, list[float]]


# -- the launcher


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and of those that it waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) * TICK_SECONDS


def drive(made: Slot, deadline: float, times: list[float], runs: list[float]) -> None:
    """One sandbox after another until the deadline."""
    while (began := time.perf_counter()) < deadline:
        report = made.run("/bin/true").report
        assert report.shell_exit_code == 0
        times.append(time.perf_counter() - began)
        runs.append((report.ended_ns - report.started_ns) / 1e9)


def measure_sandboxes(slots: list[Slot], level: int, seconds: float, samples: Samples) -> None:
    """So many launchers side by side, for so long."""
    used = [cpu_seconds(made.launcher) for made in slots]
    times: list[list[float]] = [[] for _ in range(level)]
    runs: list[float] = []
    began = time.perf_counter()
    threads = [
        threading.Thread(target=drive, args=(made, began + seconds, found, runs))
        for made, found in zip(slots, times, strict=False)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = time.perf_counter() - began
    count = sum(map(len, times))
    cpu = sum(cpu_seconds(made.launcher) for made in slots) - sum(used)
    record(samples, SANDBOX, level, count / taken, cpu / count)
    samples[f"{SANDBOX}, {level} at once, request to end"].append(median(runs) * 1000)
    samples[f"{SANDBOX}, {level} at once, each"].append(
        1000 * median([*chain.from_iterable(times)])
    )


# -- the floor


def measure_floor(floor: KernelFloor, level: int, count: int, samples: Samples) -> None:
    """Each in a container of its own, which the loop leaves as it was."""
    found = floor.run(level, count)
    record(samples, FLOOR, level, found.rate, found.cpu_seconds)
    samples[f"{FLOOR}, {level} at once, each"].append(median(found.each_seconds) * 1000)


def record(samples: Samples, name: str, level: int, rate: float, cpu: float) -> None:
    """Keep a rate, and the CPU time of each in ms."""
    samples[f"{name}, {level} at once"].append(rate)
    samples[f"{name}, {level} at once, CPU"].append(cpu * 1000)


# -- docker run


def measure_docker_run(samples: Samples) -> None:
    """One container by the command line, until it is removed."""
    began = time.perf_counter()
    words = ["docker", "run", "--rm", "--network", "none", IMAGE, "/bin/true"]
    subprocess.run(words, check=True)
    samples[f"{DOCKER}, 1 at once"].append(1 / (time.perf_counter() - began))


# -- all together


def measure(options: argparse.Namespace) -> Samples:
    """Everything, in turns."""
    samples: Samples = defaultdict(list)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        floor = KernelFloor(folder)
        slots = [stack.enter_context(slot(folder / str(level))) for level in LEVELS]
        for made in slots:
            drive(made, time.perf_counter() + 1, [], [])
        for turn in range(options.turns):
            for level in LEVELS:
                measure_sandboxes(slots, level, options.seconds, samples)
                rate = samples[f"{SANDBOX}, {level} at once"][-1] / level
                measure_floor(floor, level, int(rate * options.seconds), samples)
            for _ in range(options.docker_runs):
                measure_docker_run(samples)
            say(f"turn {turn + 1}/{options.turns}")
    return samples


def made_report(samples: Samples, options: argparse.Namespace) -> report.Report:
    """The report: ratios of the same run first."""

    def ratio(name: str, one: str, other: str, goal: float | None = None) -> Ratio:
        value = median(samples[one]) / median(samples[other])
        return Ratio(name=name, value=value, unit="x", goal=goal)

    def unit(name: str) -> str:
        return "ms" if name.endswith(("CPU", "each", "end")) else "per s"

    docker_run = f"{DOCKER}, 1 at once"
    return report.Report(
        name="sandboxes",
        machine=options.machine,
        options={"seconds": options.seconds, "turns": options.turns},
        ratios=[
            *(
                ratio(
                    f"{SANDBOX} to {FLOOR}, {n} at once",
                    f"{SANDBOX}, {n} at once",
                    f"{FLOOR}, {n} at once",
                    0.25,
                )
                for n in LEVELS
            ),
            *(
                ratio(
                    f"CPU of {SANDBOX} to {FLOOR}, {n} at once",
                    f"{SANDBOX}, {n} at once, CPU",
                    f"{FLOOR}, {n} at once, CPU",
                )
                for n in LEVELS
            ),
            ratio(f"{SANDBOX} to {DOCKER}, 1 at once", f"{SANDBOX}, 1 at once", docker_run),
        ],
        figures=[
            Figure(
                name=name,
                unit=unit(name),
                spread=spread(found),
                limit=LIMITS[name.partition(",")[0]],
            )
            for name, found in sorted(samples.items())
        ],
        samples=samples,
        notes=["CPU is of the launcher and its children, kernel threads and this client left out"],
    )


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--seconds", type=float, default=3, help="of one measurement (3)")
    add("--turns", type=int, default=5, help="measurements of each (5)")
    add("--docker-runs", type=int, default=2, help="of each turn (2)")
    return parser.parse_args()


def main() -> None:
    """Measure, print the table, keep the JSON and the picture."""
    options = parsed()
    options.machine = machine.description()
    found = made_report(measure(options), options)
    rates = [figure for figure in found.figures if figure.unit == "per s"]
    sys.stdout.write(report.table(found))
    ours = frozenset(figure.name for figure in rates if figure.name.startswith(SANDBOX))
    panel = Panel(title="a second", figures=rates, ours=ours, logarithmic=True)
    for path in report.keep(found, draw("Sandboxes a second", [panel])):
        say(f"kept {path}")


if __name__ == "__main__":
    main()
