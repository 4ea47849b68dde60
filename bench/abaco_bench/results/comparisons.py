"""What ``fresh_containers.py`` compares: ratios, picture, what bounds each figure. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from abaco_bench.results.figures import (
    Figure,
    Ratio,
    median,
    more_than,
    percentile,
    spread,
    times_faster,
)
from abaco_bench.results.picture import Panel, draw

Samples = Mapping[str, Sequence[float]]

ENGINE = (
    "the engine: about ten programs are started for one container, two of them the engine itself"
)
SAME_AND_HTTP = "the same, and HTTP"

LIMITS = {
    "docker run: first output": ENGINE,
    "docker run: finished": "the same, and the end: network, mounts and cgroups are taken down",
    "runc run: first output": "runc, which starts itself in the new namespaces",
    "runc run: finished": "the same, and taking the cgroups down",
    "pool: POST to answer": "one write of the log to disk (sync_interval), and HTTP",
    "pool: accepted to first output": (
        "two writes to disk, one after the other (message, assignment), then fork and exec"
    ),
    "pool: POST to first output": SAME_AND_HTTP,
    "pool: accepted to finished": "the same, and the writes of the output and the end",
    "pool: POST to finished": SAME_AND_HTTP,
    "pool: finished to GET": "one write of the read models to disk, and HTTP",
    "raw API: finished": f"{ENGINE}; no client is started",
    "raw API: removed": "the same, and removing what is left of the container",
    "cold: POST to answer": "one write of the log to disk (sync_interval), and HTTP",
    "cold: accepted to first output": "the engine; a worker is asked for first: two more writes",
    "cold: POST to first output": SAME_AND_HTTP,
    "cold: accepted to finished": "the engine, and as many writes as there are events",
    "cold: POST to finished": SAME_AND_HTTP,
    "sustained: raw API": (
        "the ends, one at a time (docs/adr/0008), and the CPUs, which the starts beside them share"
    ),
    "sustained: kernel floor": "the kernel alone: namespaces, mounts, the filter, and their end",
    "sustained: ours": "the CPUs, which kernel, engine and our services share",
    "burst: messages": "the same, and the time until the workers are busy",
    "burst: assigned to finished": "the CPUs, which all workers share",
}
CPU = "CPU"
OF_THE_CPU = "processes by /proc: of the engine's and the machine's, what others use is part"


class Goals(NamedTuple):
    """The goals of an isolation; the sandbox's are those of messages that need no new container.

    ``p50_ms`` and ``p99_ms`` are of POST to finished, where a worker is ready.
    """

    p50_ms: float
    p99_ms: float | None
    raw_api: float
    floor: float | None
    burst: float | None


GOALS = {
    "sandbox": Goals(p50_ms=10, p99_ms=30, raw_api=15, floor=0.25, burst=5),
    "container": Goals(p50_ms=15, p99_ms=None, raw_api=0.95, floor=None, burst=None),
}
ISOLATIONS = tuple(GOALS)
GET_MS = 10
"""The goal for the time until GET shows an end, in both modes."""


def figures(samples: Samples) -> list[Figure]:
    """A figure of each kind of samples, in their order."""
    return [
        Figure(name=name, unit=_unit(name), spread=spread(found), limit=_limit(name))
        for name, found in samples.items()
        if found
    ]


def _unit(name: str) -> str:
    return "per s" if name.startswith("sustained") or name.endswith(": messages") else "ms"


def _limit(name: str) -> str:
    """The limit of a figure, which does not depend on the isolation."""
    if f", {CPU}: " in name:
        return OF_THE_CPU
    for isolation in ISOLATIONS:
        name = name.replace(f", {isolation}", "")
    return LIMITS[name]


def ratios(samples: Samples) -> Iterator[Ratio]:
    """The comparisons for which there are samples, isolation by isolation."""
    for isolation, goals in GOALS.items():
        yield from _hits(samples, isolation, goals)
        yield from _rates(samples, isolation, goals)
        if service := samples.get(f"burst, {isolation}: assigned to finished"):
            yield Ratio(
                name=f"burst, {isolation}, assigned to finished, p99 to p50",
                value=percentile(service, 99) / median(service),
                unit="x",
                goal=goals.burst,
                at_most=True,
            )


def _hits(samples: Samples, isolation: str, goals: Goals) -> Iterator[Ratio]:
    for what in ("first output", "finished"):
        slow = samples.get(f"docker run: {what}")
        fast = samples.get(f"pool, {isolation}: accepted to {what}")
        if slow and fast:
            name = f"pool hit, {isolation}, against docker run, to {what}"
            yield times_faster(name, slow, fast, 30)
    if hits := samples.get(f"pool, {isolation}: POST to finished"):
        for percent, goal in ((50, goals.p50_ms), (99, goals.p99_ms)):
            yield Ratio(
                name=f"pool hit, {isolation}, POST to finished, p{percent}",
                value=percentile(hits, percent),
                unit="ms",
                goal=goal,
                at_most=True,
            )
    if lags := samples.get(f"pool, {isolation}: finished to GET"):
        yield Ratio(
            name=f"pool hit, {isolation}, finished to GET, p50",
            value=median(lags),
            unit="ms",
            goal=GET_MS,
            at_most=True,
        )
    cold = samples.get(f"cold, {isolation}: POST to finished")
    raw = samples.get("raw API: finished")
    if cold and raw and len(cold) == len(raw):
        yield more_than(f"cold start, {isolation}, more than the raw API", cold, raw, 30)


def _rates(samples: Samples, isolation: str, goals: Goals) -> Iterator[Ratio]:
    for other, goal in (("raw API", goals.raw_api), ("kernel floor", goals.floor)):
        if turns := by_turn(samples, isolation, other):
            name = f"sustained, {isolation}, to the {other}"
            yield Ratio(name=name, value=median(turns), unit="x", goal=goal)


def by_turn(samples: Samples, isolation: str, other: str) -> list[float]:
    """Ours to another side in each turn of the sustained part, in which they were side by side."""
    ours = samples.get(f"sustained: ours, {isolation}", ())
    theirs = samples.get(f"sustained: {other}", ())
    return [a / b for a, b in zip(ours, theirs, strict=True)] if ours and theirs else []


def picture(found: Sequence[Figure]) -> str:
    """The figures as a picture: times and rates on a logarithmic axis."""
    mine = frozenset(
        f.name for f in found if f.name.startswith(("pool", "cold", "sustained: ours", "burst"))
    )
    times = [f for f in found if f.unit == "ms" and f", {CPU}: " not in f.name]
    used = [f for f in found if f", {CPU}: " in f.name]
    rates = [f for f in found if f.unit != "ms"]
    return draw(
        "A fresh container for each message",
        [
            Panel(title="time", figures=times, ours=mine, logarithmic=True),
            Panel(title="messages a second", figures=rates, ours=mine, logarithmic=True),
            Panel(title="CPU time of a message", figures=used, ours=mine, logarithmic=False),
        ],
    )
