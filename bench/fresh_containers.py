"""A fresh container for each message: our paths beside docker run, the raw API, and runc.

    python bench/fresh_containers.py [--rounds N] [--seconds S] [--only pool,cold,…]

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
from pathlib import Path
from typing import NoReturn

from abaco_bench import comparisons, machine, raw_rate, report, runc_bundle, stage, sustained
from abaco_bench.platform_runs import ColdRuns, PoolRuns
from abaco_bench.progress import say
from abaco_bench.raw_docker import EngineStuck, RawDocker

PARTS = ("docker-run", "raw-api", "runc", "pool", "cold", "sustained")
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
            if self.options.only & {"pool", "cold", "sustained"}:
                say("starting an embedded stack of its own …")
                ours = stack.enter_context(stage.running(network_by=self.options.network_by))
                self.machine["sync_interval"] = ours.sync_interval
            self._rounds(self._parts(raw, ours, stack))
            if self.wants("sustained"):
                assert ours is not None
                self._sustained(ours)

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
        if self.wants("pool") and ours is not None:
            self.ours.append(PoolRuns(ours))
            parts["pool"] = self.ours[-1].run
        if self.wants("raw-api"):
            parts["raw API"] = raw.by_api
        if self.wants("cold") and ours is not None:
            self.ours.append(ColdRuns(ours))
            parts["cold"] = self.ours[-1].run
        return parts

    def _rounds(self, parts: Mapping[str, Part]) -> None:
        rounds = self.options.rounds if parts else 0
        for number in range(-WARM_ROUNDS if rounds else 0, rounds):
            for name, part in parts.items():
                for _ in range(self.options.pool_hits if name == "pool" else 1):
                    found = part()
                    if number >= 0 and found is not None:
                        self._note(name, found)
            say(f"round {number + 1}/{rounds}" if number >= 0 else "warming up …")
        self.notes += [runs.note() for runs in self.ours]

    def _note(self, part: str, found: Mapping[str, float]) -> None:
        for what, value in found.items():
            self.samples[f"{part}: {what}"].append(value)

    def _sustained(self, ours: stage.Stage) -> None:
        """Find the best level of each, then measure the two in turns."""
        search, seconds = self.options.search_seconds, self.options.seconds / TURNS
        connected = {"the worker": 0, "the engine": 0}

        def their_rate(level: int, seconds: float = search) -> float:
            rate = raw_rate.rate(self.run, level, seconds)
            say(f"sustained: raw API, {level} starting: {rate:.2f}/s")
            return rate

        def our_rate(level: int, seconds: float = search) -> float:
            found = sustained.ours(ours, level, seconds)
            connected["the worker"] += found.by_worker
            connected["the engine"] += found.by_engine
            say(f"sustained: ours, {level} workers: {found.rate:.2f}/s")
            return found.rate

        self.levels["raw API"], their_rates = sustained.best(self.options.threads, their_rate)
        self.levels["ours"], our_rates = sustained.best(self.options.workers, our_rate)
        self.notes.append(f"sustained, raw API, containers/s by threads: {_rates(their_rates)}")
        self.notes.append(f"sustained, ours, containers/s by workers: {_rates(our_rates)}")
        sides = [("raw API", their_rate), ("ours", our_rate)]
        for turn in range(TURNS):
            for side, rate in sides if turn % 2 == 0 else reversed(sides):
                self.samples[f"sustained: {side}"].append(rate(self.levels[side], seconds))
        seen = ", ".join(f"{who} {count}" for who, count in connected.items())
        self.notes.append(f"sustained, ours, containers seen at the end, connected by: {seen}")
        turns = ", ".join(f"{ratio:.2f}" for ratio in comparisons.by_turn(self.samples))
        self.notes.append(f"sustained, ours to the raw API, turn by turn: {turns}")

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
