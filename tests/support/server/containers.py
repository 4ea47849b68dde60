"""The containers that the engine has, found by our labels."""

from typing import Any

import docker


def left_of(actor_id: str, host_id: str) -> list[Any]:
    """All containers of an actor on a host, running or not; others' on the same engine are none."""
    client = docker.from_env()
    try:
        label = {"label": [f"abaco.actor_id={actor_id}", f"abaco.host_id={host_id}"]}
        return list(client.api.containers(all=True, filters=label))
    finally:
        client.close()
