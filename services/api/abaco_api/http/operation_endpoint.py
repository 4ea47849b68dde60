"""The endpoint of one path: what every operation has in common around its own endpoint.

A POST may carry the header ``Idempotency-Key`` of the IETF draft
draft-ietf-httpapi-idempotency-key-header. A repeated request gets the response of the first, made
from the event in the log. A request that led to no event (an error, or nothing to do) is executed
again.
"""

from collections.abc import Awaitable, Callable, Mapping
from secrets import token_hex

from starlette.requests import Request
from starlette.responses import Response

from abaco_api.commands.command_handler import Cause
from abaco_api.contract.operation import KEY, Operation
from abaco_api.dependencies import Service, after_header
from abaco_api.http.response_envelope import SEQUENCE
from abaco_api.idempotency.idempotency_key import AlreadyExecuted, key_of_request
from abaco_api.queries.freshness import ALL_ACTORS
from abaco_telemetry.context import log_context

AS_OF_HEADER = "Abaco-As-Of"
"""In a response about the past: the sequence that ``as_of`` resolved to."""

PathEndpoint = Callable[[Request], Awaitable[Response]]


def path_endpoint(operations: Mapping[str, Operation], api: Service) -> PathEndpoint:
    """The endpoint of a path, with its operations by method."""

    async def serve(request: Request) -> Response:
        operation = operations["GET" if request.method == "HEAD" else request.method]
        names = request.path_params
        with log_context(
            actor_id=names.get("actor_id", ""), execution_id=names.get("execution_id", "")
        ):
            if operation.kind == "command":
                return await _execute(operation, api, request)
            if operation.kind == "query":
                after_header(request)  # a malformed header is refused by every query
            response = await operation.endpoint(api, request)
        if hasattr(request.state, "as_of"):
            response.headers[AS_OF_HEADER] = str(request.state.as_of)
        return response

    return serve


async def _execute(operation: Operation, api: Service, request: Request) -> Response:
    """Execute a command; with a key in the request it leads to one event at most."""
    if operation.repeated is not None and KEY in request.headers:
        key = await key_of_request(request, api.settings, body=operation.body is not None)
        cause = Cause(causation_id=key.causation_id(token_hex(4)), key=key)
    else:
        cause = Cause()
    try:
        return await operation.endpoint(api, request, cause)
    except AlreadyExecuted as executed:
        assert operation.repeated is not None
        response = await operation.repeated.response(api, request, executed.recorded)
        sequence = int(response.headers.get(SEQUENCE, "0"))
        actor_id = getattr(executed.recorded.event, "actor_id", "")
        api.freshness.wrote(sequence, actor_id, ALL_ACTORS)
        return response
