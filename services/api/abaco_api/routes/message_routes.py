"""Operations on messages: send, count the waiting ones, purge them."""

from starlette.requests import Request
from starlette.responses import Response

from abaco_api.as_of.as_of_parameter import AS_OF
from abaco_api.commands.command_handler import Cause
from abaco_api.contract import request_schemas
from abaco_api.contract.operation import PAST, Operation, Repeated
from abaco_api.contract.result_types import MessageResult, WaitingResult
from abaco_api.dependencies import Service
from abaco_api.domain.commands import PurgeInbox, SendMessage
from abaco_api.domain.messages import (
    MESSAGE_NAME,
    check_environment,
    check_environment_size,
    check_variable,
    decide_send,
)
from abaco_api.http.parameters import (
    JSON,
    Parameters,
    checked_actor_id,
    convert,
    json_text,
    nothing_else,
    query_parameters,
    read_parameters,
)
from abaco_api.http.response_envelope import success
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded


async def send(api: Service, request: Request, cause: Cause) -> Response:
    """Append a message to an inbox. Once it is accepted, it is exactly one execution."""
    actor_id = checked_actor_id(request.path_params["actor_id"])
    query = query_parameters(request)
    parameters = await read_parameters(request, api.settings.max_body_bytes)
    command = parse_message(actor_id, parameters, query)
    accepted = await api.inbox.accept(
        actor_id,
        lambda state: decide_send(state.actor, command, state.head.next_ordinal),
        cause,
    )
    api.freshness.wrote(accepted.sequence, actor_id)
    result = MessageResult(execution_id=accepted.execution_id, msg=parameters.values["message"])
    return success(result, sequence=accepted.sequence)


def parse_message(actor_id: str, parameters: Parameters, query: dict[str, str]) -> SendMessage:
    """The command that sends a message; the query string is its environment."""
    message = convert(parameters, request_schemas.Message).message
    kind = "text/plain"
    if not isinstance(message, str):
        message, kind = json_text(message), JSON
    check_variable("message", MESSAGE_NAME, message)
    for name, value in query.items():
        check_environment(name[:100] or "the query string", {name: value})
    if query:
        check_environment_size("the query string", query)
    return SendMessage(actor_id=actor_id, message=message, content_type=kind, environment=query)


async def sent(api: Service, request: Request, recorded: Recorded) -> Response:
    """The response to a repeated message."""
    event = recorded.event
    assert isinstance(event, ev.MessageReceived)
    parameters = await read_parameters(request, api.settings.max_body_bytes)
    result = MessageResult(execution_id=event.execution_id, msg=parameters.values["message"])
    return success(result, sequence=recorded.sequence)


async def count(api: Service, request: Request) -> Response:
    """The number of waiting messages."""
    nothing_else(query_parameters(request), AS_OF)
    actor_id = checked_actor_id(request.path_params["actor_id"])
    models = await api.as_of(request, actor_id)
    return success(WaitingResult(messages=await models.waiting(actor_id)))


async def purge(api: Service, request: Request, cause: Cause) -> Response:
    """End all waiting messages; running executions continue."""
    nothing_else(query_parameters(request))
    actor_id = checked_actor_id(request.path_params["actor_id"])
    sequence = await api.control.purge(PurgeInbox(actor_id=actor_id), cause)
    api.freshness.wrote(sequence, actor_id)
    return success(None, "Messages purged successfully.", sequence=sequence)


OPERATIONS = (
    Operation(
        method="POST",
        path="/actors/{actor_id}/messages",
        endpoint=send,
        kind="command",
        summary="Send a message",
        result=MessageResult,
        body=request_schemas.Message,
        any_query="Every query parameter becomes an environment variable of this execution, over "
        "the actor's default environment; MSG and _abaco_* are reserved.",
        repeated=Repeated(event=ev.MessageReceived, response=sent),
    ),
    Operation(
        method="GET",
        path="/actors/{actor_id}/messages",
        endpoint=count,
        kind="query",
        summary="Count the messages that wait",
        result=WaitingResult,
        query=PAST,
    ),
    Operation(
        method="DELETE",
        path="/actors/{actor_id}/messages",
        endpoint=purge,
        kind="command",
        summary="Purge the messages that wait",
        result=None,
    ),
)
