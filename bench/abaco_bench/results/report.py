"""A report: what a bench found, as a table for people and as JSON for later. Pure but ``keep``."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from abaco_bench.results.figures import Figure, Ratio

BUILD = Path(__file__).resolve().parents[3] / "build" / "bench"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All that one run of one bench has to say. ``samples`` are the raw ones, by figure."""

    name: str
    machine: Mapping[str, Any]
    options: Mapping[str, Any]
    ratios: Sequence[Ratio]
    figures: Sequence[Figure]
    samples: Mapping[str, Sequence[float]]
    notes: Sequence[str] = ()


def table(report: Report) -> str:
    """Ratios first, then the figures with their spread and limit, then the circumstances."""
    lines = [*_ratios(report.ratios), "", *_figures(report.figures), ""]
    lines += [f"note: {note}" for note in report.notes]
    lines += ["  ".join(f"{key}: {value}" for key, value in report.machine.items())]
    lines += ["  ".join(f"{key}: {value}" for key, value in report.options.items())]
    return "\n".join(lines) + "\n"


def _ratios(ratios: Sequence[Ratio]) -> Iterator[str]:
    width = max((len(r.name) for r in ratios), default=0)
    for r in ratios:
        goal = (
            "" if r.goal is None else f"   goal {'<=' if r.at_most else '>='} {r.goal:g} {r.unit}"
        )
        verdict = {True: "   reached", False: "   MISSED", None: ""}[r.holds]
        yield f"{r.name:{width}}  {number(r.value):>8} {r.unit:3}{goal}{verdict}".rstrip()


def _figures(figures: Sequence[Figure]) -> Iterator[str]:
    """A line for each; and what limits it, once for those in a row of which the same is true."""
    width = max((len(f.name) for f in figures), default=6)
    yield f"{'':{width}}  {'p50':>8} {'p10':>8} {'p90':>8} {'p99':>8}        {'n':>5}"
    for limit, limited in groupby(figures, key=lambda f: f.limit):
        for f in limited:
            s = f.spread
            values = " ".join(f"{number(v):>8}" for v in (s.p50, s.p10, s.p90, s.p99))
            yield f"{f.name:{width}}  {values} {f.unit:6} {s.count:>5}"
        yield f"{'':{width}}    limited by {limit}"


def number(value: float) -> str:
    """Three digits that count, and no exponent."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def numbers(text: str) -> list[int]:
    """An option's value such as ``1,2,4``.

    Raises:
        ValueError: it is not that; argparse reports it.
    """
    return [int(part) for part in text.split(",")]


def as_json(report: Report) -> bytes:
    """The whole report, samples and all."""
    found = msgspec.to_builtins(report)
    for ratio, entry in zip(report.ratios, found["ratios"], strict=True):
        entry["holds"] = ratio.holds
    return msgspec.json.format(msgspec.json.encode(found)) + b"\n"


def keep(report: Report, picture: str | None = None) -> list[Path]:
    """Write ``build/bench/<name>.json``, and the picture beside it; the paths written."""
    BUILD.mkdir(parents=True, exist_ok=True)
    written = [BUILD / f"{report.name}.json"]
    written[0].write_bytes(as_json(report))
    if picture is not None:
        written.append(BUILD / f"{report.name}.svg")
        written[1].write_text(picture)
    return written
