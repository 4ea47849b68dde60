"""What a host holds with many workers, and what is left after many messages of one of them.

    python bench/endurance.py [--workers N] [--messages N] [--isolation sandbox|container]

First ``--workers`` workers of an actor are idle, then each runs a message that lasts: processes and
private memory for each of them. Then ``--messages`` messages run one after the other in a single
worker: what the machine holds after the first thousand, and at the end.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import psutil

from abaco_bench.load.burst import send
from abaco_bench.results import machine
from abaco_bench.results.progress import say
from abaco_bench.results.report import number
from abaco_bench.stack.stage import Stage, running
from images import QUICK, SLEEPING

MEBIBYTE = 1024 * 1024
CHUNK = 1000
"""Messages that are sent at once, so that the inbox is never empty for long."""

CHUNK_SECONDS = 600.0
LASTING = "900"
"""Seconds that a message sleeps; longer than it takes to start them all."""

LOOK_SECONDS = 0.5
PARTS = {
    "dockerd": "dockerd",
    "containerd": "containerd",
    "containerd-shim": "shims",
    "abaco-pause": "process 1 of containers",
}
"""Processes by the name that the kernel knows."""

KERNEL_NAME = 15
"""The kernel keeps so many characters of a name."""


class Part:
    """Some processes: how many, and the memory that only they use, in MiB."""

    def __init__(self) -> None:
        self.processes = 0
        self.mebibytes = 0.0
        self.descriptors = 0

    def add(self, process: psutil.Process) -> None:
        """Count one more."""
        with suppress(psutil.Error):
            self.mebibytes += process.memory_full_info().uss / MEBIBYTE
            self.descriptors += process.num_fds()
            self.processes += 1


def parts(stage: Stage) -> dict[str, Part]:
    """The processes of the stack, its launchers, and the engine."""
    found: dict[str, Part] = {}
    names = {pid: name for name, pid in stage.services.items()}
    command = ["helper", str(stage.worker_dir)]
    for process in psutil.process_iter(["pid", "name", "cmdline"]):
        name = names.get(process.pid)
        if (process.info["cmdline"] or [])[1:] == command:
            name = "launchers"
        elif name is None:
            name = PARTS.get(process.info["name"][:KERNEL_NAME])
        if name is not None:
            found.setdefault(name, Part()).add(process)
    return found


def leavings(stage: Stage) -> dict[str, float]:
    """What may be left of messages, each as a number."""
    below = f"{stage.worker_dir}/"
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found: dict[str, float] = {
        "mounts of the machine": len(mounts),
        "mounts below the folder of the worker": sum(below in line for line in mounts),
        "files and folders of the worker": sum(
            len(folders) + len(files) for _, folders, files in os.walk(stage.worker_dir)
        ),
        "control groups": sum(1 for _ in os.walk("/sys/fs/cgroup")),
        "network interfaces": sum(1 for _ in Path("/sys/class/net").iterdir()),
    }
    for name, part in parts(stage).items():
        found[f"processes, {name}"] = part.processes
        found[f"descriptors, {name}"] = part.descriptors
        found[f"MiB, {name}"] = part.mebibytes
    return found


# -- many workers


def many_workers(stage: Stage, count: int, isolation: str) -> None:
    """Print what each of so many workers adds, idle and at work."""
    before = parts(stage)
    actor_id = stage.register("bench-many", SLEEPING, least=count, most=count, isolation=isolation)
    try:
        begun = time.monotonic()
        stage.wait_workers(actor_id, count)
        say(f"{count} workers are ready after {time.monotonic() - begun:.0f} s")
        _print_each(f"for each of {count} idle workers", before, parts(stage), count)
        asyncio.run(send(stage.url, actor_id, [LASTING] * count))
        begun = time.monotonic()
        while (running_now := len(stage.subscriber.kinds(actor_id))) < count:
            if time.monotonic() > begun + CHUNK_SECONDS:
                raise TimeoutError(f"{running_now} of {count} messages have started")
            time.sleep(LOOK_SECONDS)
        kinds = Counter(stage.subscriber.kinds(actor_id))
        say(f"{count} messages run after {time.monotonic() - begun:.0f} s: {dict(kinds)}")
        _print_each(f"for each of {count} workers with a message", before, parts(stage), count)
    finally:
        stage.delete(actor_id)


def _print_each(
    title: str, before: Mapping[str, Part], after: Mapping[str, Part], count: int
) -> None:
    lines = [f"{title:<44}{'processes':>12}{'MiB':>10}"]
    total = 0.0
    for name, part in sorted(after.items()):
        was = before.get(name, Part())
        each = (part.mebibytes - was.mebibytes) / count
        total += each
        processes = (part.processes - was.processes) / count
        lines.append(f"  {name:<42}{number(processes):>12}{number(each):>10}")
    lines.append(f"  {'all':<42}{'':>12}{number(total):>10}")
    sys.stdout.write("\n".join(lines) + "\n\n")


# -- many messages


def many_messages(stage: Stage, count: int, isolation: str) -> None:
    """Run so many messages in one worker, and print what was held early and late."""
    actor_id = stage.register("bench-long", QUICK, least=1, most=1, isolation=isolation)
    stage.wait_workers(actor_id, 1)
    early: dict[str, float] = {}
    late: dict[str, float] = {}
    begun = time.monotonic()
    for done in _chunks(stage, actor_id, count):
        late = leavings(stage)
        early = early or late
        say(f"{done} messages, {done / (time.monotonic() - begun):.1f} a second")
    title = f"after {min(CHUNK, count)} and {count} messages"
    lines = [f"{title:<52}{'early':>10}{'late':>10}"]
    for name in sorted({*early, *late}):
        was, now = early.get(name, 0.0), late.get(name, 0.0)
        lines.append(f"  {name:<50}{number(was):>10}{number(now):>10}")
    sys.stdout.write("\n".join(lines) + "\n\n")
    kinds = Counter(stage.subscriber.kinds(actor_id))
    sys.stdout.write(f"  start_kind {dict(kinds)}\n\n")


def _chunks(stage: Stage, actor_id: str, count: int) -> Iterator[int]:
    """Run all messages; yield how many have ended after each chunk."""
    for first in range(0, count, CHUNK):
        done = min(first + CHUNK, count)
        asyncio.run(send(stage.url, actor_id, map(str, range(first, done))))
        stage.subscriber.finished(f"{actor_id}_exc_{done - 1}", CHUNK_SECONDS)
        yield done


def main() -> None:
    """Measure, print, and clean up."""
    signal.signal(signal.SIGTERM, _terminated)
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--workers", type=int, default=200, help="0: leave this out")
    parser.add_argument("--messages", type=int, default=100_000, help="0: leave this out")
    parser.add_argument("--isolation", choices=("sandbox", "container"), default="sandbox")
    options = parser.parse_args()
    say("starting an embedded stack of its own …")
    with running(host_capacity=str(max(options.workers, 1) + 1)) as stage:
        if options.workers:
            many_workers(stage, options.workers, options.isolation)
        if options.messages:
            many_messages(stage, options.messages, options.isolation)
        facts = {**machine.description(), "sync_interval": stage.sync_interval}
        sys.stdout.write("  ".join(f"{key}: {value}" for key, value in facts.items()) + "\n")


def _terminated(*_: object) -> NoReturn:
    raise SystemExit(1)  # so that what was started is stopped


if __name__ == "__main__":
    main()
