"""The endpoint of an operation that takes an ``Idempotency-Key``.

The header is that of the IETF draft draft-ietf-httpapi-idempotency-key-header; its whole value,
quotes included, is the key. A repeated request gets the answer of the first, made from the event
in the log. A request that led to no event (an error, or nothing to do) is executed anew.
"""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from abaco_api.contract.operation import KEY, MAX_KEY, Endpoint, Operation
from abaco_api.dependencies import service
from abaco_api.http.http_errors import BadParameter
from abaco_api.http.request_body import read_parameters
from abaco_api.http.response_envelope import SEQUENCE
from abaco_api.idempotency.idempotency_key import (
    AlreadyExecuted,
    IdempotencyKey,
    key_of_request,
    using,
)
from abaco_api.queries.freshness import ALL_ACTORS


def with_idempotency(operation: Operation) -> Endpoint:
    """The endpoint of an operation; with a key in the request it leads to one event at most."""
    if operation.once is None:
        return operation.endpoint
    once = operation.once

    async def endpoint(request: Request) -> Response:
        keys = request.headers.getlist(KEY)
        if not keys:
            return await operation.endpoint(request)
        with using(await _key(operation, request, checked_key(keys))):
            try:
                return await operation.endpoint(request)
            except AlreadyExecuted as executed:
                response = await once.answer(request, executed.recorded)
                sequence = int(response.headers.get(SEQUENCE, "0"))
                actor_id = getattr(executed.recorded.event, "actor_id", "")
                service(request).freshness.wrote(sequence, actor_id, ALL_ACTORS)
                return response

    return endpoint


def checked_key(keys: list[str]) -> str:
    """The key in a request's headers, which must be one."""
    if len(keys) > 1:
        raise BadParameter(KEY, "is there more than once")
    [key] = keys
    if not 1 <= len(key) <= MAX_KEY or not all(" " <= c <= "~" for c in key):
        raise BadParameter(KEY, f"expected 1 to {MAX_KEY} printable ASCII characters")
    return key


async def _key(operation: Operation, request: Request, key: str) -> IdempotencyKey:
    parameters: object = None
    config = service(request).config
    if operation.body is not None:
        read = await read_parameters(request, config.max_body_bytes)
        parameters = [read.form, _texts(read.values)]
    return key_of_request(
        key,
        tenant=config.tenant,
        method=request.method,
        path=request.scope["path"],
        query=request.scope["query_string"].decode("latin-1"),
        parameters=parameters,
    )


def _texts(values: dict[str, Any]) -> dict[str, Any]:
    """The values; a JSON value whose text is kept is compared without white space."""
    return {
        name: bytes(msgspec.json.format(value, indent=-1)).decode()
        if isinstance(value, msgspec.Raw)
        else value
        for name, value in values.items()
    }
