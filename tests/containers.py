"""The containers that the engine has, found by our labels."""

from typing import Any

import docker


def left_of(actor_id: str) -> list[Any]:
    """All containers of an actor, running or not."""
    client = docker.from_env()
    try:
        label = {"label": [f"abaco.actor_id={actor_id}"]}
        return list(client.api.containers(all=True, filters=label))
    finally:
        client.close()
