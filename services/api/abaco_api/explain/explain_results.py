"""The results of questions about one run."""

from typing import Annotated

import msgspec
from msgspec import Meta

from abaco_api.contract.result_types import Bytes, Nanoseconds, Seconds


class RerunResult(msgspec.Struct, frozen=True, kw_only=True):
    """A new execution with the inputs of an old one. ``image`` is the digest that was recorded."""

    execution_id: str
    rerun_of: str
    image: str


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of two executions side by side."""

    execution_id: str
    status: str
    exit_code: int | None
    runtime: Seconds
    cpu: Nanoseconds
    log_bytes: Bytes
    image_digest: str | None


class InputsResult(msgspec.Struct, frozen=True, kw_only=True):
    """Which of image, message, environment and state two runs were given alike.

    ``different`` also names ``privileged`` and ``no_new_privileges`` where those differ.
    """

    same: list[str]
    different: list[str]


class DiffResult(msgspec.Struct, frozen=True, kw_only=True):
    """Two executions side by side, the earlier first, and the lines their outputs differ in."""

    executions: Annotated[list[Side], Meta(min_length=2, max_length=2)]
    inputs: InputsResult
    same_exit_code: bool
    same_output: bool
    output: Annotated[list[str], Meta(description="A unified diff, line by line.")]
    output_truncated: Annotated[
        bool, Meta(description="Whether there is more output, or more of the diff, than shown.")
    ]


class CauseResult(msgspec.Struct, frozen=True, kw_only=True):
    """What caused an execution: a request, a subscription, or a rerun.

    ``id`` is that of the request or the event, ``principal`` who did it; the rest says more
    where it applies.
    """

    kind: str
    says: str
    id: str
    principal: str | None = None
    sequence: int | None = None
    actor_id: str | None = None
    subscription_id: str | None = None
    execution_id: str | None = None


class StepResult(msgspec.Struct, frozen=True, kw_only=True):
    """One event on the way of an execution. ``principal`` is who did it; null if unknown."""

    seq: int
    time: str
    type: str
    principal: str | None
    says: str


class StandingResult(msgspec.Struct, frozen=True, kw_only=True):
    """Where it stands: ``waits``, ``runs`` or ``ended``, the reason as a word, and in words."""

    state: str
    reason: str
    says: str


class EffectResult(msgspec.Struct, frozen=True, kw_only=True):
    """An execution that came of this one: by a subscription, or as a rerun."""

    seq: int
    execution_id: str
    actor_id: str
    kind: str
    says: str


class WhyResult(msgspec.Struct, frozen=True, kw_only=True):
    """Why an execution is where it is. ``caused`` is null when that cannot be told now."""

    execution_id: str
    status: str
    says: str
    cause: CauseResult
    steps: list[StepResult]
    standing: StandingResult
    caused: list[EffectResult] | None
