"""Operations on nonces: create, list, show, delete."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from abaco_api.access.domain.access_fold import Nonce, nonce_of
from abaco_api.access.domain.api_token import NONCE_PREFIX
from abaco_api.access.domain.nonce_requests import UNLIMITED, NonceUses
from abaco_api.commands import parse
from abaco_api.commands.command_handler import Cause
from abaco_api.contract import request_schemas
from abaco_api.contract.operation import Operation, Repeated
from abaco_api.contract.result_types import NewNonceResult, NonceResult
from abaco_api.dependencies import Service
from abaco_api.http.parameters import (
    checked_actor_id,
    nothing_else,
    query_parameters,
    read_parameters,
)
from abaco_api.http.response_envelope import success
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded, format_time


async def create(api: Service, request: Request, cause: Cause) -> Response:
    """Create a nonce for an actor. Its text is in this answer and nowhere else.

    Who sends it in the header `x-nonce` has its level on this actor, and no other right. Each
    request is one use. A repetition with the same Idempotency-Key gets null instead of the text,
    which is not stored.
    """
    nothing_else(query_parameters(request))
    actor_id = checked_actor_id(request.path_params["actor_id"])
    parameters = await read_parameters(request, api.settings.max_body_bytes)
    wanted = parse.nonce(parameters)
    created = await api.nonces.create(request.state.principal, actor_id, wanted, cause)
    return _created(created.nonce, created.text, created.sequence)


async def repeated_create(_: Service, __: Request, recorded: Recorded) -> Response:
    """The response to a repeated request, without the text of the nonce."""
    event = recorded.event
    assert isinstance(event, ev.NonceCreated)
    return _created(nonce_of(event, recorded.time), None, recorded.sequence)


def _created(nonce: Nonce, text: str | None, sequence: int) -> Response:
    result = NewNonceResult(nonce=text, **_fields(nonce, NonceUses(sequence)))
    msg = "Actor nonce created successfully. Its text is shown only once."
    response = success(result, msg, status=201, sequence=sequence)
    response.headers["cache-control"] = "no-store"
    return response


async def list_nonces(api: Service, request: Request) -> Response:
    """The nonces of an actor, those that are used up included. The oldest is the first."""
    nothing_else(query_parameters(request))
    actor_id = checked_actor_id(request.path_params["actor_id"])
    found = await api.nonces.list(actor_id)
    result = [NonceResult(**_fields(nonce, uses)) for nonce, uses in found]
    return success(result, "Actor nonces retrieved successfully.")


async def show(api: Service, request: Request) -> Response:
    """One nonce."""
    nothing_else(query_parameters(request))
    nonce, uses = await api.nonces.show(*_named(request))
    return success(NonceResult(**_fields(nonce, uses)), "Actor nonce retrieved successfully.")


async def delete(api: Service, request: Request, cause: Cause) -> Response:
    """Delete a nonce, for good. Its open streams end."""
    nothing_else(query_parameters(request))
    sequence = await api.nonces.delete(*_named(request), cause)
    return success(None, "Actor nonce deleted successfully.", sequence=sequence)


def _named(request: Request) -> tuple[str, str]:
    return checked_actor_id(request.path_params["actor_id"]), request.path_params["nonce_id"]


def _fields(nonce: Nonce, uses: NonceUses) -> dict[str, Any]:
    is_unlimited = nonce.max_uses == UNLIMITED
    return {
        "id": nonce.nonce_id,
        "prefix": NONCE_PREFIX + nonce.nonce_id,
        "actor_id": nonce.actor_id,
        "owner": nonce.owner or None,
        "level": nonce.level.value,
        "max_uses": nonce.max_uses,
        "current_uses": uses.uses,
        "remaining_uses": UNLIMITED if is_unlimited else nonce.max_uses - uses.uses,
        "description": nonce.description,
        "create_time": format_time(nonce.created_at),
        "last_use_time": None if uses.used_at is None else format_time(uses.used_at),
    }


_PATH = "/actors/{actor_id}/nonces"

OPERATIONS = (
    Operation(
        method="POST",
        path=_PATH,
        endpoint=create,
        kind="command",
        summary="Create a nonce",
        result=NewNonceResult,
        status=201,
        body=request_schemas.NonceParameters,
        errors=(409,),
        repeated=Repeated(event=ev.NonceCreated, response=repeated_create),
    ),
    Operation(
        method="GET",
        path=_PATH,
        endpoint=list_nonces,
        kind="query",
        summary="List the nonces of an actor",
        result=list[NonceResult],
    ),
    Operation(
        method="GET",
        path=_PATH + "/{nonce_id}",
        endpoint=show,
        kind="query",
        summary="Show a nonce",
        result=NonceResult,
    ),
    Operation(
        method="DELETE",
        path=_PATH + "/{nonce_id}",
        endpoint=delete,
        kind="command",
        summary="Delete a nonce",
        result=None,
    ),
)
