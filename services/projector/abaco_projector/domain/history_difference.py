"""The first difference between what should be equal, in one line that a person can act on."""

from abaco_proto.errors import Refused

LONGEST = 120


class Difference(Refused):
    """Log, copy and read models do not agree. The text names what, and where."""


def ended_early(head: int, until: int) -> Difference:
    """The log's tail is gone."""
    return Difference(
        f"the log ends at event {head}, but the read models have seen {until}: its tail is missing"
    )


def gap(before: int, behind: int) -> Difference:
    """Events are gone from the middle of the log."""
    first, last = before + 1, behind - 1
    what = f"event {first} is" if first == last else f"events {first} to {last} are"
    return Difference(f"the log: {what} missing")


def copy_ended_early(end: int, checkpoint: int) -> Difference:
    """The copy's tail is gone."""
    return Difference(
        f"table events ends at row {end}, but the checkpoint is {checkpoint}: its tail is missing"
    )


def row_missing(table: str, key: str) -> Difference:
    """A row that the log demands is not there."""
    return Difference(f"table {table}: row {key} is missing")


def row_unfounded(table: str, key: str) -> Difference:
    """A row that the log does not know of is there."""
    return Difference(f"table {table}: row {key} is in no history")


def changed(where: str, column: str, expected: str | None, found: str | None) -> Difference:
    """A value is another than the one that was recorded."""
    wanted, got = shown(expected, found)
    return Difference(f"{where}, column {column}: expected {wanted}, found {got}")


def output_beyond(run: str, expected: int, found: int) -> Difference:
    """There is more output than the end of the run recorded."""
    return Difference(f"table logs: {run}: expected {expected} bytes, found some up to {found}")


def output_overlaps(run: str) -> Difference:
    """A chunk of output begins before the end of the one before: nobody writes that."""
    return Difference(f"table logs: {run}: two rows hold the same bytes")


def output_changed(run: str, expected: str, found: str) -> Difference:
    """The bytes are others than those that the run wrote."""
    return Difference(f"table logs: {run}: expected SHA-256 {expected}, found {found}")


def swapped(where: str, one: int, other: int) -> Difference:
    """Two events stand in each other's place."""
    first, last = sorted((one, other))
    return Difference(f"{where} {first} and {last} are swapped")


def moved(where: str, at: int, origin: int) -> Difference:
    """An event stands in another's place."""
    return Difference(f"{where} {at} holds what belongs to {origin}")


def noted(sequence: int, expected: str, found: str | None) -> Difference:
    """The hash that an auditor noted down is not the hash of now."""
    got = "nothing" if found is None else found
    return Difference(f"event {sequence}: the hash noted down is {expected}, found {got}")


def shown(expected: str | None, found: str | None) -> tuple[str, str]:
    """Both values, shortened to the neighbourhood of where they part."""
    if expected is None or found is None:
        return _cut(expected, 0), _cut(found, 0)
    equal = next(
        (n for n, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b),
        min(len(expected), len(found)),
    )
    start = max(equal - LONGEST // 4, 0)
    return _cut(expected, start), _cut(found, start)


def _cut(value: str | None, start: int) -> str:
    if value is None:
        return "nothing"
    longer = len(value) > start + LONGEST
    lead, trail = "…" if start else "", "…" if longer else ""
    return f"{lead}{value[start : start + LONGEST]!r}{trail}"
