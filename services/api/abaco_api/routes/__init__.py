"""The operations of the api, one resource per module, and the table of all."""

from abaco_api.contract.operation import Operation
from abaco_api.routes import (
    actor_routes,
    event_routes,
    execution_routes,
    explain_routes,
    health_routes,
    message_routes,
    nonce_routes,
    permission_routes,
    state_routes,
    subscription_routes,
    token_routes,
    worker_routes,
)

OPERATIONS: tuple[Operation, ...] = (
    *message_routes.OPERATIONS,
    *actor_routes.OPERATIONS,
    *state_routes.OPERATIONS,
    *execution_routes.OPERATIONS,
    *worker_routes.OPERATIONS,
    *subscription_routes.OPERATIONS,
    *permission_routes.OPERATIONS,
    *nonce_routes.OPERATIONS,
    *token_routes.OPERATIONS,
    *event_routes.OPERATIONS,
    *explain_routes.OPERATIONS,
    *health_routes.OPERATIONS,
)
