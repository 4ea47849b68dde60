"""Operations on API tokens: create, list, show, revoke."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from abaco_api.access.domain.access_fold import AccessFold, Token
from abaco_api.access.domain.api_token import PREFIX
from abaco_api.commands import parse
from abaco_api.commands.command_handler import Cause
from abaco_api.contract import request_schemas
from abaco_api.contract.operation import Operation, Repeated, paging
from abaco_api.contract.result_types import NewTokenResult, TokenResult
from abaco_api.dependencies import Service
from abaco_api.http.paged_response import link_next
from abaco_api.http.parameters import (
    MAX_LIMIT,
    nothing_else,
    parse_page,
    query_parameters,
    read_parameters,
)
from abaco_api.http.response_envelope import success
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded, format_time

DEFAULT_LIMIT = 1000


async def create(api: Service, request: Request, cause: Cause) -> Response:
    """Create an API token. Its text is in this answer and nowhere else.

    It has at most the rights of its creator. A repetition with the same Idempotency-Key gets null
    instead of the text, which is not stored.
    """
    nothing_else(query_parameters(request))
    parameters = await read_parameters(request, api.settings.max_body_bytes)
    wanted = parse.token(parameters)
    principal = request.state.principal
    created = await api.access_commands.create_token(principal, wanted, cause)
    return _created(created.token, created.text, created.sequence)


async def repeated_create(_: Service, __: Request, recorded: Recorded) -> Response:
    """The response to a repeated request, without the text of the token."""
    event = recorded.event
    assert isinstance(event, ev.TokenCreated)
    fold = AccessFold()
    fold.apply(recorded)
    token = fold.token(event.token_id)
    assert token is not None
    return _created(token, None, recorded.sequence)


def _created(token: Token, text: str | None, sequence: int) -> Response:
    result = NewTokenResult(token=text, **_fields(token))
    msg = "Token created successfully. Its text is shown only once."
    return success(result, msg, status=201, sequence=sequence)


async def list_tokens(api: Service, request: Request) -> Response:
    """Your API tokens; for an admin, those of the tenant. The oldest is the first."""
    query = query_parameters(request)
    page = parse_page(query, default=DEFAULT_LIMIT)
    found = await api.access_commands.tokens(request.state.principal)
    shown = found[page.offset : page.offset + page.limit]
    result = [TokenResult(**_fields(token)) for token in shown]
    response = success(result, "Tokens retrieved successfully.")
    if len(found) > page.offset + page.limit:
        link_next(response, request, query, offset=page.offset + page.limit)
    return response


async def show(api: Service, request: Request) -> Response:
    """One API token."""
    nothing_else(query_parameters(request))
    token_id = request.path_params["token_id"]
    token = await api.access_commands.token(request.state.principal, token_id)
    return success(TokenResult(**_fields(token)), "Token retrieved successfully.")


async def revoke(api: Service, request: Request, cause: Cause) -> Response:
    """Revoke an API token, for good. Its open streams end."""
    nothing_else(query_parameters(request))
    token_id = request.path_params["token_id"]
    sequence = await api.access_commands.revoke_token(request.state.principal, token_id, cause)
    return success(None, "Token revoked successfully.", sequence=sequence)


def _fields(token: Token) -> dict[str, Any]:
    return {
        "id": token.token_id,
        "prefix": PREFIX + token.token_id,
        "name": token.name,
        "owner": token.owner,
        "roles": sorted(role.value for role in token.roles),
        "read_only": token.read_only,
        "actors": None if token.actors is None else sorted(token.actors),
        "created_by": token.created_by,
        "create_time": format_time(token.created_at),
        "expire_time": format_time(token.expires_at),
        "last_use_date": None if token.last_used is None else token.last_used.isoformat(),
    }


OPERATIONS = (
    Operation(
        method="POST",
        path="/tokens",
        endpoint=create,
        kind="command",
        summary="Create an API token",
        result=NewTokenResult,
        status=201,
        body=request_schemas.TokenParameters,
        errors=(409,),
        repeated=Repeated(event=ev.TokenCreated, response=repeated_create),
    ),
    Operation(
        method="GET",
        path="/tokens",
        endpoint=list_tokens,
        kind="query",
        summary="List API tokens",
        result=list[TokenResult],
        query=paging(MAX_LIMIT, DEFAULT_LIMIT),
    ),
    Operation(
        method="GET",
        path="/tokens/{token_id}",
        endpoint=show,
        kind="query",
        summary="Show an API token",
        result=TokenResult,
    ),
    Operation(
        method="DELETE",
        path="/tokens/{token_id}",
        endpoint=revoke,
        kind="command",
        summary="Revoke an API token",
        result=None,
    ),
)
