"""A fresh container or sandbox for each message, beside docker run, the raw API, and runc.

    python bench/fresh_containers.py [--rounds N] [--seconds S] [--only pool,cold,…]
        [--isolation sandbox,container]

One run measures all, in turns (a round takes one sample of each), so that what else the machine
does hits all alike. docs/explanation/benchmarks.md describes how to read it.
"""

import argparse
import os
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NoReturn

from abaco_bench.baselines import raw_rate, runc_bundle
from abaco_bench.baselines.kernel_floor import KernelFloor
from abaco_bench.baselines.raw_docker import EngineStuck, RawDocker
from abaco_bench.load import sustained
from abaco_bench.load.burst import burst
from abaco_bench.results import comparisons, machine, report
from abaco_bench.results.progress import say
from abaco_bench.stack import stage
from abaco_bench.stack.platform_runs import ColdRuns, PoolRuns

PARTS = ("docker-run", "raw-api", "runc", "floor", "pool", "cold", "sustained", "burst")
"""``floor`` is a side of the sustained part."""

OURS = {"pool", "cold", "sustained", "burst"}
FLOOR_LEVEL = 2
WARM_ROUNDS = 2
TURNS = 6
"""How often the two best levels are measured in the sustained part, in turns.

An engine gets slower while it works (a file system does not give away again at once what was just
deleted), and a machine drifts: so the turns are short, and each side begins every other one.
"""

Part = Callable[[], Mapping[str, float] | None]


class Bench:
    """One run: what was asked for, and what was found so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.run = f"{os.getpid()}"
        self.samples: dict[str, list[float]] = defaultdict(list)
        self.notes: list[str] = []
        self.ours: list[PoolRuns | ColdRuns] = []
        self.levels: dict[str, int] = {}
        self.machine = machine.description()

    def wants(self, part: str) -> bool:
        """Whether a part was asked for."""
        return part in self.options.only

    def measure(self) -> None:
        """All parts that were asked for; cleans up whatever ends it."""
        with ExitStack() as stack:
            raw = stack.enter_context(_cleaned(RawDocker(self.run)))
            ours = None
            if self.options.only & OURS:
                say("starting an embedded stack of its own …")
                ours = stack.enter_context(stage.running(network_by=self.options.network_by))
                self.machine["sync_interval"] = ours.sync_interval
            self._rounds(self._parts(raw, ours, stack))
            if self.wants("sustained"):
                assert ours is not None
                self._sustained(ours, self._floor(stack))
            if self.wants("burst"):
                assert ours is not None
                for isolation in self.options.isolation:
                    self._burst(ours, isolation)

    def _parts(self, raw: RawDocker, ours: stage.Stage | None, stack: ExitStack) -> dict[str, Part]:
        """What a round consists of, in order. The raw API is next to the cold start."""
        parts: dict[str, Part] = {}
        if self.wants("docker-run"):
            parts["docker run"] = raw.command_line
        if self.wants("runc"):
            if why := runc_bundle.available():
                self.notes.append(f"runc was not measured: {why}")
            else:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                parts["runc run"] = runc_bundle.RuncBundle(folder).run
        for isolation in self.options.isolation if self.wants("pool") else ():
            assert ours is not None
            self.ours.append(PoolRuns(ours, isolation))
            parts[f"pool, {isolation}"] = self.ours[-1].run
        if self.wants("raw-api"):
            parts["raw API"] = raw.by_api
        for isolation in self.options.isolation if self.wants("cold") else ():
            assert ours is not None
            self.ours.append(ColdRuns(ours, isolation))
            parts[f"cold, {isolation}"] = self.ours[-1].run
        return parts

    def _rounds(self, parts: Mapping[str, Part]) -> None:
        rounds = self.options.rounds if parts else 0
        for number in range(-WARM_ROUNDS if rounds else 0, rounds):
            for name, part in parts.items():
                for _ in range(self.options.pool_hits if name.startswith("pool") else 1):
                    found = part()
                    if number >= 0 and found is not None:
                        self._note(name, found)
            say(f"round {number + 1}/{rounds}" if number >= 0 else "warming up …")
        self.notes += [runs.note() for runs in self.ours]

    def _note(self, part: str, found: Mapping[str, float]) -> None:
        for what, value in found.items():
            self.samples[f"{part}: {what}"].append(value)

    def _floor(self, stack: ExitStack) -> KernelFloor | None:
        if not self.wants("floor"):
            return None
        if os.geteuid() != 0:
            self.notes.append("the kernel floor was not measured: it needs root")
            return None
        return KernelFloor(Path(stack.enter_context(tempfile.TemporaryDirectory())))

    def _sustained(self, ours: stage.Stage, floor: KernelFloor | None) -> None:
        """Find the best level of each side, then measure all sides in turns."""
        sides = {"raw API": self._their_rate}
        levels = {"raw API": self.options.threads}
        for isolation in self.options.isolation:
            sides[f"ours, {isolation}"] = partial(self._our_rate, ours, isolation)
            levels[f"ours, {isolation}"] = self.options.workers
        for side, rate in sides.items():
            self.levels[side], rates = sustained.best(levels[side], rate)
            self.notes.append(f"sustained, {side}, a second by level: {_rates(rates)}")
        if floor is not None:
            sides["kernel floor"] = partial(self._floor_rate, floor)
            self.levels["kernel floor"] = FLOOR_LEVEL
        seconds = self.options.seconds / TURNS
        for turn in range(TURNS):
            order = list(sides.items())
            for side, rate in order if turn % 2 == 0 else reversed(order):
                self.samples[f"sustained: {side}"].append(rate(self.levels[side], seconds))
        for isolation in self.options.isolation:
            for other in ("raw API", "kernel floor"):
                if turns := comparisons.by_turn(self.samples, isolation, other):
                    words = ", ".join(f"{ratio:.2f}" for ratio in turns)
                    self.notes.append(f"sustained, {isolation} to the {other}, by turn: {words}")

    def _their_rate(self, level: int, seconds: float | None = None) -> float:
        rate = raw_rate.rate(self.run, level, seconds or self.options.search_seconds)
        say(f"sustained: raw API, {level} starting: {rate:.2f}/s")
        return rate

    def _our_rate(
        self, ours: stage.Stage, isolation: str, level: int, seconds: float | None = None
    ) -> float:
        found = sustained.ours(ours, isolation, level, seconds or self.options.search_seconds)
        connected = f"{found.by_worker} of the containers seen were connected by the worker"
        say(f"sustained: {isolation}, {level} workers: {found.rate:.2f}/s; {connected}")
        return found.rate

    def _floor_rate(self, floor: KernelFloor, level: int, seconds: float) -> float:
        """Its speed is not known before: a short run tells how many fit in the time."""
        first = floor.run(level, 0).rate
        rate = floor.run(level, int(first / level * seconds)).rate
        say(f"sustained: the kernel floor, {level} at once: {rate:.2f}/s")
        return rate

    def _burst(self, ours: stage.Stage, isolation: str) -> None:
        """Many messages at once; what each costs, by process."""
        found = burst(ours, isolation, self.options.burst_workers, self.options.burst_messages)
        self.samples[f"burst, {isolation}: assigned to finished"] = found.service_ms
        self.samples[f"burst, {isolation}: messages"] = [found.rate]
        for name, cpu_ms in sorted(found.cpu_ms.items(), key=lambda item: -item[1]):
            self.samples[f"burst, {isolation}, {comparisons.CPU}: {name}"] = [cpu_ms]
        kinds = ", ".join(f"{kind} {count}" for kind, count in found.kinds.items())
        self.notes.append(f"burst, {isolation}: start_kind {kinds}")
        say(f"burst, {isolation}: {found.rate:.2f}/s")

    def report(self) -> report.Report:
        """What was found."""
        return report.Report(
            name="fresh_containers",
            machine=self.machine,
            options={
                "rounds": self.options.rounds,
                "pool_hits": self.options.pool_hits,
                "seconds": self.options.seconds,
                "network_by": self.options.network_by,
                "isolation": self.options.isolation,
                "burst": [self.options.burst_messages, self.options.burst_workers],
                "best": self.levels,
            },
            ratios=list(comparisons.ratios(self.samples)),
            figures=comparisons.figures(self.samples),
            samples=self.samples,
            notes=self.notes,
        )


def _rates(rates: Mapping[int, float]) -> str:
    return ", ".join(f"{level}: {rate:.2f}" for level, rate in rates.items())


@contextmanager
def _cleaned(raw: RawDocker) -> Iterator[RawDocker]:
    try:
        yield raw
    finally:
        raw.clean()
        raw.close()


def _parts(text: str) -> set[str]:
    asked = set(text.split(","))
    if unknown := asked - set(PARTS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not of {', '.join(PARTS)}")
    return asked


def _isolations(text: str) -> list[str]:
    asked = text.split(",")
    if unknown := set(asked) - set(comparisons.ISOLATIONS):
        known = ", ".join(comparisons.ISOLATIONS)
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not of {known}")
    return asked


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--rounds", type=int, default=30, help="samples of each part (30)")
    add("--pool-hits", type=int, default=4, help="messages to the pool in a round (4)")
    add("--seconds", type=float, default=60, help="of the sustained part, at the best level (60)")
    add("--search-seconds", type=float, default=10, help="to try one level for, each time (10)")
    add("--network-by", choices=("auto", "engine"), default="auto", help="who connects ours (auto)")
    add("--threads", type=report.numbers, default=[2, 3, 4], help="levels of the raw API (2,3,4)")
    add("--workers", type=report.numbers, default=[3, 4, 6], help="levels of ours (3,4,6)")
    add(
        "--isolation",
        type=_isolations,
        default=list(comparisons.ISOLATIONS),
        help="of our actors (sandbox,container)",
    )
    add("--burst-messages", type=int, default=1000, help="at once to one actor (1000)")
    add("--burst-workers", type=int, default=4, help="of that actor (4)")
    add("--only", type=_parts, default=set(PARTS), help=f"of {','.join(PARTS)}")
    return parser.parse_args()


def _terminated(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    """Measure, print the table, keep the JSON and the picture."""
    signal.signal(signal.SIGTERM, _terminated)
    bench = Bench(options())
    try:
        bench.measure()
    except KeyboardInterrupt:
        say("stopped; everything that was started is gone")
        return 130
    except EngineStuck as error:
        say(f"{error}: it may have locked up (docs/adr/0008); if `docker ps` hangs, restart it")
        return 1
    found = bench.report()
    sys.stdout.write(report.table(found))
    for path in report.keep(found, comparisons.picture(found.figures)):
        say(f"kept {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
