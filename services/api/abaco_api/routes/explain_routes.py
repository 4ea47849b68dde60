"""Routes that explain one execution: run it again, compare it, and why it is where it is."""

import asyncio
import hashlib
from contextlib import aclosing

from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response

from abaco_api.access.domain.principal import Principal
from abaco_api.commands.command_handler import Cause
from abaco_api.commands.inbox import Accepted, InboxState
from abaco_api.contract.operation import Operation, QueryParameter, Repeated
from abaco_api.dependencies import Service
from abaco_api.domain.views import Row
from abaco_api.explain.execution_diff import HEAD_CHARACTERS, OutputHead, diff, summary
from abaco_api.explain.execution_inputs import read_inputs, rerun
from abaco_api.explain.explain_results import CauseResult, DiffResult, RerunResult, WhyResult
from abaco_api.http.parameters import (
    checked_actor_id,
    execution_ordinal,
    nothing_else,
    query_parameters,
)
from abaco_api.http.response_envelope import success
from abaco_api.streams.output.stored_output import stored_text
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Unavailable, Unknown

WITH = "with"


async def rerun_execution(api: Service, request: Request, cause: Cause) -> Response:
    """A new execution with the image, message, environment and state of an old one."""
    nothing_else(query_parameters(request))
    actor_id, ordinal = _named(request)
    await api.fresh(request, actor_id)
    row = await api.models.execution(actor_id, ordinal)
    inputs = await read_inputs(api.log, row)

    def decide(state: InboxState) -> list[ev.MessageReceived]:
        return [rerun(row, inputs, state.head.next_ordinal)]

    accepted = await api.inbox.accept(actor_id, decide, cause)
    api.freshness.wrote(accepted.sequence, actor_id)
    return _accepted(accepted, row["execution_id"], row["image_digest"])


async def repeated_rerun(_: Service, __: Request, recorded: Recorded) -> Response:
    """The answer to a repeated request for a rerun that is in the log."""
    event = recorded.event
    assert isinstance(event, ev.MessageReceived)
    assert event.rerun is not None
    accepted = Accepted(event.execution_id, recorded.sequence)
    return _accepted(accepted, event.rerun.execution_id, event.rerun.image)


def _accepted(accepted: Accepted, rerun_of: str, image: str) -> Response:
    result = RerunResult(execution_id=accepted.execution_id, rerun_of=rerun_of, image=image)
    msg = "To be run again with the same inputs."
    return success(result, msg, status=201, sequence=accepted.sequence)


async def compare(api: Service, request: Request) -> Response:
    """Exit code, output and duration side by side; whether the inputs were the same."""
    query = query_parameters(request)
    nothing_else(query, WITH)
    actor_id, ordinal = _named(request)
    await api.fresh(request, actor_id)
    one, other = await _pair(api, actor_id, ordinal, query.get(WITH))
    inputs = await read_inputs(api.log, one), await read_inputs(api.log, other)
    texts = await _output(api, one), await _output(api, other)
    found = await asyncio.to_thread(diff, (one, other), inputs, texts)
    return success(found, summary(found))


async def _pair(api: Service, actor_id: str, ordinal: int, other: str | None) -> tuple[Row, Row]:
    """The two to compare; by default a rerun and its original, the original first."""
    row = await api.models.execution(actor_id, ordinal)
    if other is not None:
        beside = execution_ordinal(actor_id, other)
        return row, await api.models.execution(actor_id, beside)
    if row["rerun_of"] is not None:
        before = execution_ordinal(actor_id, row["rerun_of"])
        return await api.models.execution(actor_id, before), row
    latest = await api.models.latest_rerun(actor_id, row["execution_id"])
    if latest is None:
        what = f"{row['execution_id']} was not run again, so say which to compare it with"
        raise Unknown(f"{WITH}: {what}")
    return row, await api.models.execution(actor_id, latest)


async def _output(api: Service, row: Row) -> OutputHead:
    """The beginning of an output, and the digest of all of it, whatever its length."""
    head, digest = "", hashlib.sha256()
    texts = stored_text(api.models, row["execution_id"], row["attempt"])
    async with aclosing(texts):
        async for text in texts:
            head += text[: HEAD_CHARACTERS - len(head)]
            digest.update(text.encode())
    return OutputHead(head, digest.digest())


async def why(api: Service, request: Request) -> Response:
    """What caused it, each step, what it waits for or what ended it, and what it caused."""
    nothing_else(query_parameters(request))
    actor_id, ordinal = _named(request)
    seconds = api.settings.max_replay_seconds
    try:
        async with api.past.slots.slot(), asyncio.timeout(seconds):
            found = await api.why.explain(actor_id, ordinal)
    except TimeoutError:
        raise Unavailable(f"the history of {actor_id} was not read within {seconds} s") from None
    found = await _readable(api, request.state.principal, found)
    return success(found, found.standing.says)


async def _readable(api: Service, principal: Principal, found: WhyResult) -> WhyResult:
    """The same without what is about actors that a principal may not read."""
    cause, caused = found.cause, found.caused
    if cause.actor_id is not None and not await api.access.may_read(principal, cause.actor_id):
        says = "It was caused by an event that you may not read."
        cause = CauseResult(kind=cause.kind, says=says, id="")
    if caused is not None:
        caused = [e for e in caused if await api.access.may_read(principal, e.actor_id)]
    return replace(found, cause=cause, caused=caused)


def _named(request: Request) -> tuple[str, int]:
    actor_id = checked_actor_id(request.path_params["actor_id"])
    return actor_id, execution_ordinal(actor_id, request.path_params["execution_id"])


_PATH = "/actors/{actor_id}/executions/{execution_id}"
_OTHER = QueryParameter(
    name=WITH,
    description="Another execution of the actor; by default the one this is a rerun of, or its "
    "latest rerun.",
    schema={"type": "string"},
)

OPERATIONS = (
    Operation(
        method="POST",
        path=f"{_PATH}/rerun",
        endpoint=rerun_execution,
        kind="command",
        summary="Run an execution again with the same inputs",
        result=RerunResult,
        status=201,
        errors=(409,),
        repeated=Repeated(event=ev.MessageReceived, response=repeated_rerun),
    ),
    Operation(
        method="GET",
        path=f"{_PATH}/diff",
        endpoint=compare,
        kind="query",
        summary="Compare two executions",
        result=DiffResult,
        query=(_OTHER,),
    ),
    Operation(
        method="GET",
        path=f"{_PATH}/why",
        endpoint=why,
        kind="query",
        summary="Say why an execution is where it is",
        result=WhyResult,
    ),
)
