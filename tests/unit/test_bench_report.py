import json
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from abaco_bench.results import comparisons
from abaco_bench.results.figures import Figure, spread
from abaco_bench.results.picture import Panel, draw
from abaco_bench.results.report import Report, as_json, number, table

SAMPLES = {
    "docker run: first output": [250.0, 260.0, 240.0],
    "docker run: finished": [300.0, 310.0, 290.0],
    "pool, container: accepted to first output": [5.0, 4.0, 6.0],
    "pool, container: accepted to finished": [10.0, 9.0, 12.0],
    "pool, container: POST to finished": [14.0, 13.0, 30.0],
    "raw API: finished": [280.0, 300.0, 270.0],
    "cold, container: POST to finished": [300.0, 360.0, 280.0],
    "sustained: raw API": [5.0, 4.0],
    "sustained: ours, container": [4.5, 4.0],
}

SVG = "{http://www.w3.org/2000/svg}"


def report(samples: dict[str, list[float]]) -> Report:
    return Report(
        name="fresh_containers",
        machine={"cores": 2},
        options={"rounds": 3},
        ratios=list(comparisons.ratios(samples)),
        figures=comparisons.figures(samples),
        samples=samples,
        notes=["a note"],
    )


def test_the_comparisons_and_their_goals() -> None:
    found = {r.name: (r.value, r.holds) for r in comparisons.ratios(SAMPLES)}
    assert found.pop("pool hit, container, POST to finished, p99") == (29.68, None)
    assert found == {
        "pool hit, container, against docker run, to first output": (50, True),
        "pool hit, container, against docker run, to finished": (30, True),
        "pool hit, container, POST to finished, p50": (14, True),
        "cold start, container, more than the raw API": (20, True),
        "sustained, container, to the raw API": (0.95, True),
    }


SANDBOX = {
    "pool, sandbox: POST to finished": [9.0, 8.0, 41.0],
    "sustained: raw API": [5.0, 4.0],
    "sustained: kernel floor": [300.0, 280.0],
    "sustained: ours, sandbox": [90.0, 56.0],
    "burst, sandbox: assigned to finished": [10.0, 10.0, 60.0],
    "burst, sandbox: messages": [80.0],
    "burst, sandbox, CPU: worker": [4.5],
}


def test_a_sandbox_has_goals_of_its_own() -> None:
    found = {r.name: (r.value, r.holds) for r in comparisons.ratios(SANDBOX)}
    assert found == {
        "pool hit, sandbox, POST to finished, p50": (9.0, True),
        "pool hit, sandbox, POST to finished, p99": (pytest.approx(40.36), False),
        "sustained, sandbox, to the raw API": (16, True),
        "sustained, sandbox, to the kernel floor": (0.25, True),
        "burst, sandbox, assigned to finished, p99 to p50": (pytest.approx(5.9), False),
    }


def test_each_figure_has_its_unit_and_limit() -> None:
    figures = {f.name: f for f in comparisons.figures({**SAMPLES, **SANDBOX})}
    assert all(figure.limit for figure in figures.values())
    assert figures["burst, sandbox: messages"].unit == "per s"
    assert figures["burst, sandbox: assigned to finished"].unit == "ms"
    assert figures["burst, sandbox, CPU: worker"].limit == comparisons.OF_THE_CPU


def test_what_was_not_measured_is_not_compared() -> None:
    assert list(comparisons.ratios({})) == []
    assert list(comparisons.ratios({"pool, sandbox: POST to finished": []})) == []
    assert comparisons.figures({"pool, sandbox: POST to finished": []}) == []


def test_cold_and_raw_of_different_rounds_are_not_compared() -> None:
    odd = {"cold, sandbox: POST to finished": [1.0], "raw API: finished": [1.0, 2.0]}
    assert list(comparisons.ratios(odd)) == []


def test_the_table_begins_with_ratios_and_gives_each_figure_its_limit() -> None:
    lines = table(report(SAMPLES)).splitlines()
    first = "pool hit, container, against docker run, to first output 50.0 x goal >= 30 x reached"
    assert " ".join(lines[0].split()) == first
    [at] = [n for n, line in enumerate(lines) if line.startswith("pool, container: POST to fin")]
    assert lines[at].split()[5:] == ["14.0", "13.2", "26.8", "29.7", "ms", "3"]
    assert lines[at + 1].strip() == "limited by the same, and HTTP"
    assert lines[-3:] == ["note: a note", "cores: 2", "rounds: 3"]


def test_a_missed_goal_cannot_be_overlooked() -> None:
    slow = {**SAMPLES, "sustained: ours, container": [1.0, 1.0]}
    assert "goal >= 0.95 x   MISSED" in table(report(slow))


def test_an_empty_report_is_a_table_too() -> None:
    assert "rounds: 3" in table(report({}))


def test_numbers_have_three_digits_that_count() -> None:
    assert [number(v) for v in (0.456, 1, 12.34, 345.6, -0.5)] == [
        "0.46",
        "1.00",
        "12.3",
        "346",
        "-0.50",
    ]


def test_the_json_has_everything() -> None:
    found: dict[str, Any] = json.loads(as_json(report(SAMPLES)))
    assert found["samples"] == SAMPLES
    assert found["machine"] == {"cores": 2}
    assert {r["name"]: r["holds"] for r in found["ratios"]}[
        "pool hit, container, POST to finished, p50"
    ]
    assert found["figures"][0]["spread"]["p50"] == 250


def elements(svg: str, tag: str) -> list[ET.Element]:
    return list(ET.fromstring(svg).iter(SVG + tag))


def test_the_picture_has_a_bar_for_each_figure_and_all_is_inside() -> None:
    svg = comparisons.picture(comparisons.figures(SAMPLES))
    width = float(ET.fromstring(svg).attrib["width"])
    bars = elements(svg, "rect")[1:]
    assert len(bars) == len(SAMPLES)
    assert all(float(b.attrib["x"]) + float(b.attrib["width"]) <= width for b in bars)
    ends = [float(line.attrib[x]) for line in elements(svg, "line") for x in ("x1", "x2")]
    assert 0 < min(ends) <= max(ends) <= width
    words = [t.text or "" for t in elements(svg, "text")]
    assert set(SAMPLES) <= set(words)


def test_bars_on_a_logarithmic_axis_grow_by_the_same_for_the_same_factor() -> None:
    svg = draw("t", [panel([1, 10, 100], logarithmic=True)])
    one, ten, hundred = (float(b.attrib["width"]) for b in elements(svg, "rect")[1:])
    assert abs((hundred - ten) - (ten - one)) < 2  # the bar of the axis' beginning is one wide


def test_bars_on_a_linear_axis_are_as_long_as_their_values() -> None:
    svg = draw("t", [panel([2, 4, 0], logarithmic=False)])
    two, four, nothing = (float(b.attrib["width"]) for b in elements(svg, "rect")[1:])
    assert abs(four - 2 * two) < 1
    assert nothing == 1


def test_names_are_words_and_not_markup() -> None:
    svg = draw("a < b & c", [panel([1], logarithmic=False)])
    assert "a < b & c" in [t.text for t in elements(svg, "text")]


def test_nothing_measured_is_an_empty_picture() -> None:
    assert elements(comparisons.picture([]), "line") == []


def panel(values: list[float], *, logarithmic: bool) -> Panel:
    figures = [
        Figure(name=f"figure {n}", unit="ms", spread=spread([value]), limit="nothing")
        for n, value in enumerate(values)
    ]
    return Panel(title="p", figures=figures, ours=frozenset(), logarithmic=logarithmic)
