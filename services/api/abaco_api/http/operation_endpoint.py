"""The endpoint of one path: what every operation has in common around its own endpoint.

A POST may carry the header ``Idempotency-Key`` of the IETF draft
draft-ietf-httpapi-idempotency-key-header. A repeated request gets the response of the first, made
from the event in the log. A request that led to no event (an error, or nothing to do) is executed
again.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from secrets import token_hex
from time import monotonic

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from abaco_api.access.access_control import Operated
from abaco_api.access.domain.access_errors import Unauthenticated
from abaco_api.access.domain.principal import Principal, PrincipalKind
from abaco_api.access.domain.rules import rule_of
from abaco_api.access.guarded_response import GuardedResponse
from abaco_api.api_errors import BadParameter
from abaco_api.commands.command_handler import Cause
from abaco_api.commands.idempotency import AlreadyExecuted, idempotency_key
from abaco_api.contract.operation import KEY, MAX_KEY, Operation
from abaco_api.dependencies import Service, Tenants, after_header
from abaco_api.http.parameters import read_parameters
from abaco_api.http.request_middleware import ADMISSION, Admission
from abaco_api.http.response_envelope import SEQUENCE
from abaco_api.queries.freshness import ALL_ACTORS
from abaco_api.streams.events.event_stream import EventStream
from abaco_api.streams.output.output_response import LiveResponse
from abaco_proto.envelope import Recorded
from abaco_telemetry.context import log_context

AS_OF_HEADER = "Abaco-As-Of"
"""In a response about the past: the sequence that ``as_of`` resolved to."""

_PRINTABLE = re.compile(rf"[ -~]{{1,{MAX_KEY}}}")

PathEndpoint = Callable[[Request], Awaitable[Response]]


def path_endpoint(operations: Mapping[str, Operation], tenants: Tenants) -> PathEndpoint:
    """The endpoint of a path, with its operations by method."""
    guards = {
        method: Operated(method, operation.path, rule_of(method, operation.path))
        for method, operation in operations.items()
    }

    async def serve(request: Request) -> Response:
        operation = operations["GET" if request.method == "HEAD" else request.method]
        names = request.path_params
        principal, api = await _admitted(tenants, operation, guards[operation.method], request)
        with log_context(
            tenant=principal.tenant,
            actor_id=names.get("actor_id", ""),
            execution_id=names.get("execution_id", ""),
        ):
            if operation.kind == "command":
                cause = await _cause(operation, api, request, principal)
                await _redeem(api, request, guards[operation.method], cause)
                try:
                    return await operation.endpoint(api, request, cause)
                except AlreadyExecuted as executed:
                    return await _repeated(operation, api, request, executed.recorded)
            if principal.kind is PrincipalKind.NONCE:
                await _redeem(api, request, guards[operation.method], Cause(principal=principal))
            if operation.kind == "query":
                after_header(request)  # a malformed header is refused by every query
            response = await operation.endpoint(api, request)
        if api.access.is_on and isinstance(response, EventStream | LiveResponse):
            actor_id = names.get("actor_id")
            return GuardedResponse(response, lambda: api.access.until_revoked(principal, actor_id))
        if hasattr(request.state, "as_of"):
            response.headers[AS_OF_HEADER] = str(request.state.as_of)
        return response

    return serve


async def _admitted(
    tenants: Tenants, operation: Operation, guard: Operated, request: Request
) -> tuple[Principal, Service]:
    """Who sends a request, and what its tenant is served with; the body is read.

    Raises:
        AbacoError: the request may not be executed, or not now; its body is read only if it may.
    """
    admission: Admission = request.scope[ADMISSION]
    is_limited = operation.kind != "probe"  # a probe is cheap, and about the state of the process
    if is_limited:
        admission.enter()
    principal = tenants.access.everybody
    if principal is None:
        principal = await tenants.access.admit(request, guard)
    api = tenants.service(principal.tenant)
    if is_limited:
        api.requests.take(monotonic())
    api.access_commands.note_use(principal)
    request.state.principal = principal
    await admission.read_body()
    return principal, api


async def _redeem(api: Service, request: Request, operation: Operated, cause: Cause) -> None:
    """Use the nonce of a request that is about to be executed, if it came with one.

    Raises:
        Unauthenticated: it has no uses left, or was deleted.
    """
    principal = cause.principal
    if principal is None or principal.kind is not PrincipalKind.NONCE:
        return
    try:
        await api.nonces.redeem(principal, cause)
    except Unauthenticated as error:
        api.access.report(error, operation, principal, request)
        raise


async def _cause(
    operation: Operation, api: Service, request: Request, principal: Principal
) -> Cause:
    """The cause of a command's events; with a key in the request it leads to one event at most.

    Raises:
        BadParameter: the header is repeated, empty, too long, or not ASCII.
        Malformed: the body cannot be decoded.
    """
    if operation.repeated is None or KEY not in request.headers:
        return Cause(principal=principal)
    text = checked_key(request.headers.getlist(KEY))
    parameters: object = None
    if operation.body is not None:
        decoded = await read_parameters(request, api.settings.max_body_bytes)
        # White space between the tokens of a JSON value makes no difference.
        values = {
            name: bytes(msgspec.json.format(value, indent=-1)).decode()
            if isinstance(value, msgspec.Raw)
            else value
            for name, value in decoded.values.items()
        }
        parameters = [decoded.form, values]
    key = idempotency_key(
        text,
        tenant=principal.tenant,
        user=principal.name if principal.kind is PrincipalKind.NONCE else principal.user,
        method=request.method,
        path=request.scope["path"],
        query=request.scope["query_string"].decode("latin-1"),
        parameters=parameters,
    )
    return Cause(causation_id=key.causation_id(token_hex(4)), key=key, principal=principal)


async def _repeated(
    operation: Operation, api: Service, request: Request, recorded: Recorded
) -> Response:
    """The response to a request that was executed before, and led to an event."""
    assert operation.repeated is not None
    response = await operation.repeated.response(api, request, recorded)
    sequence = int(response.headers.get(SEQUENCE, "0"))
    actor_id = getattr(recorded.event, "actor_id", "")
    api.freshness.wrote(sequence, actor_id, ALL_ACTORS)
    return response


def checked_key(keys: list[str]) -> str:
    """The key in the headers of a request, of which there must be one.

    The whole value of the header, quotes included, is the key.
    """
    if len(keys) > 1:
        raise BadParameter(KEY, "is there more than once")
    [key] = keys
    if _PRINTABLE.fullmatch(key) is None:
        raise BadParameter(KEY, f"expected 1 to {MAX_KEY} printable ASCII characters")
    return key
