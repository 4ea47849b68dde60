"""The routes, one noun a file, and the table of them all."""

from abaco_api.operation import Operation
from abaco_api.routes import (
    actors,
    events,
    executions,
    health,
    messages,
    runs,
    state,
    subscriptions,
    workers,
)

OPERATIONS: tuple[Operation, ...] = (
    *messages.OPERATIONS,
    *actors.OPERATIONS,
    *state.OPERATIONS,
    *executions.OPERATIONS,
    *workers.OPERATIONS,
    *subscriptions.OPERATIONS,
    *events.OPERATIONS,
    *runs.OPERATIONS,
    *health.OPERATIONS,
)
