"""Two executions side by side."""

import difflib

import msgspec

from abaco_api.domain import views
from abaco_api.domain.views import Row
from abaco_api.explain.execution_inputs import Inputs, same_inputs
from abaco_api.explain.explain_results import DiffResult, InputsResult, Side

MOST_OUTPUT = 256 * 1024
MOST_LINES = 2000
"""Comparing costs up to the square of the lines."""


HEAD_CHARACTERS = MOST_OUTPUT + 3
"""Enough to tell that there is more than is compared, though a line ends there."""


class OutputHead(msgspec.Struct, frozen=True):
    """The first ``HEAD_CHARACTERS`` of an output, and the SHA-256 of its whole text."""

    text: str
    digest: bytes


def diff(
    rows: tuple[Row, Row], inputs: tuple[Inputs, Inputs], outputs: tuple[OutputHead, OutputHead]
) -> DiffResult:
    """The earlier execution first."""
    alike = same_inputs(*inputs)
    names = tuple(row["execution_id"] for row in rows)
    lines, truncated = unified((outputs[0].text, outputs[1].text), names)
    codes = [row["exit_code"] for row in rows]
    return DiffResult(
        executions=[_side(row) for row in rows],
        inputs=InputsResult(
            same=[name for name, same in alike.items() if same],
            different=[name for name, same in alike.items() if not same],
        ),
        same_exit_code=codes[0] == codes[1],
        same_output=outputs[0].digest == outputs[1].digest,
        output=lines,
        output_truncated=truncated,
    )


def summary(found: DiffResult) -> str:
    """One sentence about the inputs; the same inputs need not give the same output."""
    if not found.inputs.different:
        return "Same inputs."
    return f"Not the same inputs: {', '.join(found.inputs.different)}."


def unified(texts: tuple[str, str], names: tuple[str, ...]) -> tuple[list[str], bool]:
    """The lines of a unified diff, and whether it is incomplete."""
    whole = [text.splitlines() for text in texts]
    cut = [text[:MOST_OUTPUT].splitlines()[:MOST_LINES] for text in texts]
    lines = list(difflib.unified_diff(cut[0], cut[1], names[0], names[1], lineterm=""))
    return lines[:MOST_LINES], cut != whole or len(lines) > MOST_LINES


def _side(row: Row) -> Side:
    shown = views.execution(row)
    return Side(
        execution_id=shown.id,
        status=shown.status,
        exit_code=shown.exit_code,
        runtime=shown.runtime,
        cpu=shown.cpu,
        log_bytes=shown.log_bytes,
        image_digest=shown.image_digest,
    )
