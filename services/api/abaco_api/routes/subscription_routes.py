"""Operations on subscriptions: list, subscribe, unsubscribe."""

from starlette.requests import Request
from starlette.responses import Response

from abaco_api.as_of.as_of_parameter import AS_OF
from abaco_api.commands import parse
from abaco_api.commands.command_handler import Cause
from abaco_api.contract import request_schemas
from abaco_api.contract.operation import PAST, Operation, Repeated
from abaco_api.contract.result_types import SubscriptionResult
from abaco_api.dependencies import Service
from abaco_api.domain import views
from abaco_api.domain.commands import Unsubscribe
from abaco_api.http.parameters import (
    checked_actor_id,
    nothing_else,
    query_parameters,
    read_parameters,
)
from abaco_api.http.response_envelope import success
from abaco_api.queries.freshness import ALL_ACTORS
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded


async def list_subscriptions(api: Service, request: Request) -> Response:
    """An actor's subscriptions."""
    nothing_else(query_parameters(request), AS_OF)
    actor_id = checked_actor_id(request.path_params["actor_id"])
    models = await api.as_of(request, actor_id)
    rows = await models.subscriptions(actor_id)
    result = [views.subscription(row) for row in rows]
    return success(result, "Subscriptions retrieved successfully.")


async def subscribe(api: Service, request: Request, cause: Cause) -> Response:
    """Subscribe an actor to events: each event that matches becomes one message, as JSON."""
    nothing_else(query_parameters(request))
    actor_id = checked_actor_id(request.path_params["actor_id"])
    parameters = await read_parameters(request, api.settings.max_body_bytes)
    command = parse.subscribe(actor_id, parameters)
    await api.access.check_subscription(request.state.principal, command.event_pattern)
    outcome = await api.actors.change(command, cause)
    api.freshness.wrote(outcome.sequence, actor_id, ALL_ACTORS)
    [event] = outcome.events
    return _subscribed(event, outcome.sequence)


async def subscribed(_: Service, __: Request, recorded: Recorded) -> Response:
    """The response to a repeated subscription."""
    return _subscribed(recorded.event, recorded.sequence)


def _subscribed(event: ev.Event, sequence: int) -> Response:
    assert isinstance(event, ev.ActorSubscribed)
    result = SubscriptionResult(
        subscription_id=event.subscription_id,
        actor_id=event.actor_id,
        event_pattern=event.event_pattern,
    )
    msg = "Subscription created successfully."
    return success(result, msg, status=201, sequence=sequence)


async def unsubscribe(api: Service, request: Request, cause: Cause) -> Response:
    """End a subscription; messages that it has led to are kept."""
    nothing_else(query_parameters(request))
    actor_id = checked_actor_id(request.path_params["actor_id"])
    subscription_id = request.path_params["subscription_id"]
    command = Unsubscribe(actor_id=actor_id, subscription_id=subscription_id)
    outcome = await api.actors.change(command, cause)
    api.freshness.wrote(outcome.sequence, actor_id, ALL_ACTORS)
    return success(None, "Subscription deleted successfully.", sequence=outcome.sequence)


OPERATIONS = (
    Operation(
        method="GET",
        path="/actors/{actor_id}/subscriptions",
        endpoint=list_subscriptions,
        kind="query",
        summary="List an actor's subscriptions",
        result=list[SubscriptionResult],
        query=PAST,
    ),
    Operation(
        method="POST",
        path="/actors/{actor_id}/subscriptions",
        endpoint=subscribe,
        kind="command",
        summary="Subscribe an actor to events",
        result=SubscriptionResult,
        status=201,
        body=request_schemas.Subscription,
        repeated=Repeated(event=ev.ActorSubscribed, response=subscribed),
    ),
    Operation(
        method="DELETE",
        path="/actors/{actor_id}/subscriptions/{subscription_id}",
        endpoint=unsubscribe,
        kind="command",
        summary="End a subscription",
        result=None,
    ),
)
