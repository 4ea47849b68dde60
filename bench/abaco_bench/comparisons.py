"""What ``fresh_containers.py`` compares: ratios, picture, what bounds each figure. Pure."""

from collections.abc import Iterator, Mapping, Sequence

from abaco_bench.figures import Figure, Ratio, median, more_than, percentile, spread, times_faster
from abaco_bench.picture import Panel, draw

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
    "sustained: ours": "the CPUs, which engine, runc and our services share",
}


def figures(samples: Samples) -> list[Figure]:
    """A figure of each kind of samples, in their order."""
    return [
        Figure(name=name, unit=_unit(name), spread=spread(found), limit=LIMITS[name])
        for name, found in samples.items()
        if found
    ]


def _unit(name: str) -> str:
    return "per s" if name.startswith("sustained") else "ms"


def ratios(samples: Samples) -> Iterator[Ratio]:
    """The comparisons for which there are samples, those with goals first."""
    for what in ("first output", "finished"):
        slow, fast = samples.get(f"docker run: {what}"), samples.get(f"pool: accepted to {what}")
        if slow and fast:
            yield times_faster(f"pool hit against docker run, to {what}", slow, fast, 30)
    if hits := samples.get("pool: POST to finished"):
        for percent, goal in ((50, 15.0), (99, None)):
            yield Ratio(
                name=f"pool hit, POST to finished, p{percent}",
                value=percentile(hits, percent),
                unit="ms",
                goal=goal,
                at_most=True,
            )
    cold, raw = samples.get("cold: POST to finished"), samples.get("raw API: finished")
    if cold and raw and len(cold) == len(raw):
        yield more_than("cold start more than the raw API", cold, raw, 30)
    ours, theirs = samples.get("sustained: ours"), samples.get("sustained: raw API")
    if ours and theirs:
        turns = by_turn(samples)
        yield Ratio(name="sustained, ours to the raw API", value=median(turns), unit="x", goal=0.95)


def by_turn(samples: Samples) -> list[float]:
    """Ours to the raw API in each turn of the sustained part; its two were side by side."""
    ours, theirs = samples["sustained: ours"], samples["sustained: raw API"]
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def picture(found: Sequence[Figure]) -> str:
    """The figures as a picture: times on a logarithmic axis, rates on a linear one."""
    mine = frozenset(
        f.name for f in found if f.name.startswith(("pool", "cold", "sustained: ours"))
    )
    times = [f for f in found if f.unit == "ms"]
    rates = [f for f in found if f.unit != "ms"]
    return draw(
        "A fresh container for each message",
        [
            Panel(title="time", figures=times, ours=mine, logarithmic=True),
            Panel(title="containers a second", figures=rates, ours=mine, logarithmic=False),
        ],
    )
