"""Differences between log, copy, read models and output, each in one line."""

from abaco_proto.errors import Refused

MAX_EXCERPT_CHARACTERS = 120


class Difference(Refused):
    """Log, copy, read models or output differ. The text names what, and where."""


def ended_early(head: int, until: int) -> Difference:
    """The end of the log is missing."""
    return Difference(
        f"the log ends at event {head}, but the read models have seen {until}: its tail is missing"
    )


def gap(before: int, after: int) -> Difference:
    """Events in the middle of the log are missing."""
    first, last = before + 1, after - 1
    what = f"event {first} is" if first == last else f"events {first} to {last} are"
    return Difference(f"the log: {what} missing")


def copy_ended_early(end: int, checkpoint: int) -> Difference:
    """The end of the verified copy is missing."""
    return Difference(
        f"table events ends at row {end}, but the checkpoint is {checkpoint}: its tail is missing"
    )


def row_missing(table: str, key: str) -> Difference:
    """A row that follows from the log is missing."""
    return Difference(f"table {table}: row {key} is missing")


def row_unknown(table: str, key: str) -> Difference:
    """A row does not follow from the log."""
    return Difference(f"table {table}: row {key} is in no history")


def changed(where: str, column: str, expected: str | None, found: str | None) -> Difference:
    """A value is not the recorded one."""
    wanted, got = excerpts(expected, found)
    return Difference(f"{where}, column {column}: expected {wanted}, found {got}")


def output_beyond(run: str, expected: int, found: int) -> Difference:
    """There is more output than the log records."""
    return Difference(f"table logs: {run}: expected {expected} bytes, found some up to {found}")


def output_overlaps(run: str) -> Difference:
    """A chunk of output starts before the end of the previous one, which no writer does."""
    return Difference(f"table logs: {run}: two rows hold the same bytes")


def output_changed(run: str, expected: str, found: str) -> Difference:
    """Output is not what the run wrote."""
    return Difference(f"table logs: {run}: expected SHA-256 {expected}, found {found}")


def swapped(where: str, one: int, other: int) -> Difference:
    """Two events are swapped."""
    first, last = sorted((one, other))
    return Difference(f"{where} {first} and {last} are swapped")


def moved(where: str, at: int, origin: int) -> Difference:
    """An event is at the position of another."""
    return Difference(f"{where} {at} holds what belongs to {origin}")


def noted(sequence: int, expected: str, found: str | None) -> Difference:
    """The hash that an auditor noted does not match."""
    got = "nothing" if found is None else found
    return Difference(f"event {sequence}: the hash noted down is {expected}, found {got}")


def excerpts(expected: str | None, found: str | None) -> tuple[str, str]:
    """Return both values, shortened to the part around the first difference."""
    if expected is None or found is None:
        return _cut(expected, 0), _cut(found, 0)
    equal = next(
        (n for n, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b),
        min(len(expected), len(found)),
    )
    start = max(equal - MAX_EXCERPT_CHARACTERS // 4, 0)
    return _cut(expected, start), _cut(found, start)


def _cut(value: str | None, start: int) -> str:
    if value is None:
        return "nothing"
    longer = len(value) > start + MAX_EXCERPT_CHARACTERS
    lead, trail = "…" if start else "", "…" if longer else ""
    return f"{lead}{value[start : start + MAX_EXCERPT_CHARACTERS]!r}{trail}"
