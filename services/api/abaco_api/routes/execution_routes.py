"""Operations on executions: list, show, output, halt, retry."""

import asyncio
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from abaco_api.as_of.as_of_parameter import AS_OF
from abaco_api.commands.command_handler import Cause
from abaco_api.contract.operation import PAST, Operation, QueryParameter, Repeated, paging
from abaco_api.contract.result_types import ExecutionResult, ExecutionsResult
from abaco_api.dependencies import Service
from abaco_api.domain import views
from abaco_api.domain.commands import HaltExecution, RetryExecution
from abaco_api.domain.views import Row
from abaco_api.http.content_negotiation import accept
from abaco_api.http.paged_response import link_next, text_response
from abaco_api.http.parameters import (
    JSON,
    MAX_LIMIT,
    checked_actor_id,
    execution_ordinal,
    flag,
    nothing_else,
    parse_page,
    query_parameters,
    resumed,
)
from abaco_api.http.response_envelope import success
from abaco_api.streams.output.output_response import EVENTS, TEXT
from abaco_api.streams.output.stored_output import stored_text
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded

DEFAULT_LIMIT = 1000
POLL_SECONDS = 0.02


async def list_executions(api: Service, request: Request) -> Response:
    """Ids in the order of the log, and totals over all executions.

    If there are more, the header Link has the address of the next page, and Abaco-Next its
    `offset`.
    """
    query = query_parameters(request)
    page = parse_page(query, AS_OF, default=DEFAULT_LIMIT)
    actor_id = checked_actor_id(request.path_params["actor_id"])
    models = await api.as_of(request, actor_id)
    row = await models.executions(actor_id, page.limit + 1, page.offset)
    result = views.executions(row, page.limit)
    response = success(result, "Actor executions retrieved successfully.")
    if len(row["ids"]) > page.limit:
        link_next(response, request, query, offset=page.offset + page.limit)
    return response


async def show(api: Service, request: Request) -> Response:
    """One execution."""
    nothing_else(query_parameters(request), AS_OF)
    actor_id = checked_actor_id(request.path_params["actor_id"])
    ordinal = execution_ordinal(actor_id, request.path_params["execution_id"])
    models = await api.as_of(request, actor_id)
    row = await models.execution(actor_id, ordinal)
    return success(views.execution(row), "Actor execution retrieved successfully.")


async def logs(api: Service, request: Request) -> Response:
    """The output of the latest attempt, as one text; while it runs, the output so far.

    With `follow=true` output is sent as it appears, until the execution ends. It is plain text, or
    with `Accept: text/event-stream` server-sent events: `output` with a piece of text, whose id is
    the position to resume from (`<attempt>:<bytes before>`), and last `end` with the execution. A
    new attempt begins with a line of its own. `log_ex` seconds after the end nothing is shown.
    """
    query = query_parameters(request)
    nothing_else(query, "follow")
    follow = flag("follow", query)
    others = (TEXT,) if follow else (TEXT, JSON)
    events = accept(request.headers.getlist("accept")).prefers(EVENTS, *others)
    row = await _execution(api, request)
    hidden = views.expired(row, datetime.now(UTC))
    if request.method == "GET" and (events if follow is None else follow):
        begin = resumed(request.headers.get("last-event-id"), row["attempt"])
        if hidden:
            return api.live.empty(row, events=events)
        return api.live.follow(api.outputs, row, begin, events=events)
    if hidden:
        return success("", f"Logs expired {row['log_ex']} seconds after the end of the execution.")
    return await _logs_so_far(api, row)


async def _logs_so_far(api: Service, row: Row) -> Response:
    execution_id, attempt, whole = row["execution_id"], row["attempt"], row["log_bytes"]
    stored = await _stored(api, execution_id, attempt, whole)
    msg = "Logs retrieved successfully."
    if stored < whole:
        msg = f"Logs retrieved; {stored} of {whole} bytes are stored."
    text = stored_text(api.models, execution_id, attempt)
    return await text_response(text, long=api.long_outputs, msg=msg)


async def halt(api: Service, request: Request, cause: Cause) -> Response:
    """Halt an execution: at once if it waits, with SIGTERM and then SIGKILL if it runs."""
    actor_id, execution_id, ordinal = _named(request)
    command = HaltExecution(actor_id=actor_id, execution_id=execution_id)
    sequence = await api.control.halt(command, ordinal, cause)
    api.freshness.wrote(sequence, actor_id)
    return success(None, "Execution is being halted.", sequence=sequence)


async def retry(api: Service, request: Request, cause: Cause) -> Response:
    """Retry an abandoned execution, with as many attempts as a new one."""
    actor_id, execution_id, ordinal = _named(request)
    command = RetryExecution(actor_id=actor_id, execution_id=execution_id)
    sequence = await api.control.retry(command, ordinal, cause)
    api.freshness.wrote(sequence, actor_id)
    return _retried(sequence)


async def retried(_: Service, __: Request, recorded: Recorded) -> Response:
    """The response to a repeated retry."""
    return _retried(recorded.sequence)


def _retried(sequence: int) -> Response:
    return success(None, "Execution is being tried again.", sequence=sequence)


def _named(request: Request) -> tuple[str, str, int]:
    """The actor, the execution and its ordinal in the path of a request without parameters."""
    nothing_else(query_parameters(request))
    actor_id = checked_actor_id(request.path_params["actor_id"])
    execution_id = request.path_params["execution_id"]
    return actor_id, execution_id, execution_ordinal(actor_id, execution_id)


async def _execution(api: Service, request: Request) -> Row:
    actor_id = checked_actor_id(request.path_params["actor_id"])
    ordinal = execution_ordinal(actor_id, request.path_params["execution_id"])
    await api.fresh(request, actor_id)
    return await api.models.execution(actor_id, ordinal)


async def _stored(api: Service, execution_id: str, attempt: int, whole: int) -> int:
    """Wait for the output of an ended run: output is stored independently of the end."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + api.settings.read_wait_seconds
    while whole > 0:
        stored = await api.models.stored_output(execution_id, attempt)
        if stored >= whole or clock() > deadline:
            return stored
        await asyncio.sleep(POLL_SECONDS)
    return 0


OPERATIONS = (
    Operation(
        method="GET",
        path="/actors/{actor_id}/executions",
        endpoint=list_executions,
        kind="query",
        summary="List an actor's executions",
        result=ExecutionsResult,
        query=(*paging(MAX_LIMIT, DEFAULT_LIMIT), *PAST),
    ),
    Operation(
        method="GET",
        path="/actors/{actor_id}/executions/{execution_id}",
        endpoint=show,
        kind="query",
        summary="Show an execution",
        result=ExecutionResult,
        query=PAST,
    ),
    Operation(
        method="GET",
        path="/actors/{actor_id}/executions/{execution_id}/logs",
        endpoint=logs,
        kind="query",
        summary="Show an execution's output, or follow it",
        result=str,
        query=(
            QueryParameter(
                name="follow",
                description="Whether to send output as it appears, until the execution ends.",
                schema={"type": "boolean", "default": False},
            ),
            QueryParameter(
                name="Last-Event-ID",
                where="header",
                description="Resume after this piece of output.",
                schema={"type": "string", "pattern": "^([0-9]{1,9}:)?[0-9]{1,18}$"},
            ),
        ),
        media=(TEXT, EVENTS),
        errors=(429,),
    ),
    Operation(
        method="DELETE",
        path="/actors/{actor_id}/executions/{execution_id}",
        endpoint=halt,
        kind="command",
        summary="Halt an execution",
        result=None,
        errors=(409,),
    ),
    Operation(
        method="POST",
        path="/actors/{actor_id}/executions/{execution_id}/retry",
        endpoint=retry,
        kind="command",
        summary="Retry an abandoned execution",
        result=None,
        errors=(409,),
        repeated=Repeated(event=ev.ExecutionRetryRequested, response=retried),
    ),
)
