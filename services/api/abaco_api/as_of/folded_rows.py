"""Folded states as rows with the columns of the read models: views cannot tell them apart."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec.structs import asdict

from abaco_proto.actor import Actor
from abaco_proto.execution import Execution
from abaco_proto.fold import Totals
from abaco_proto.worker import Worker


def actor_row(actor: Actor, totals: Totals, subscribed: Mapping[str, datetime]) -> dict[str, Any]:
    """A row of ``actors``; ``subscribed`` says since when it has each subscription."""
    return {
        **asdict(totals),
        **asdict(actor),
        "name": actor.definition.name,
        "image": actor.definition.image,
        "description": actor.definition.description,
        "definition": _json(actor.definition),
        "state": _json(actor.state),
        "subscriptions": _json(
            {
                row["subscription_id"]: row["event_pattern"]
                for row in subscription_rows(actor, subscribed)
            }
        ),
    }


def subscription_rows(actor: Actor, subscribed: Mapping[str, datetime]) -> list[dict[str, Any]]:
    """Rows of ``subscriptions``, in their order there."""
    order = sorted(actor.subscriptions, key=lambda key: (subscribed[key], key))
    return [
        {
            "subscription_id": key,
            "actor_id": actor.actor_id,
            "event_pattern": actor.subscriptions[key],
            "subscribed_at": subscribed[key],
        }
        for key in order
    ]


def execution_row(execution: Execution) -> dict[str, Any]:
    """A row of ``executions``."""
    state = execution.final_state
    return {**asdict(execution), "final_state": None if state is None else _json(state)}


def worker_row(worker: Worker) -> dict[str, Any]:
    """A row of ``workers``."""
    return asdict(worker)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
