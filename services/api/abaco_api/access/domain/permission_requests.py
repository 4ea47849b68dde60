"""Requests to set a permission: the events that they lead to. Pure."""

from collections.abc import Sequence

from abaco_api.access.domain.decide_access import NONE, Permissions
from abaco_proto import events as ev
from abaco_proto.errors import Refused
from abaco_proto.events import PermissionLevel

MAX_USERS = 1000
"""The users that may have a level on one actor at once."""


def decide_set(
    actor_id: str, user: str, level: PermissionLevel, permissions: Permissions
) -> Sequence[ev.Event]:
    """A user's new level on an actor; nothing if the user has it.

    Raises:
        Refused: as many users have a level on the actor as may have one.
    """
    if permissions.get(user, NONE) is level:
        return []
    if user not in permissions and len(permissions) >= MAX_USERS:
        raise Refused(
            f"{actor_id}: {MAX_USERS} users have a level on it, the most: revoke one first"
        )
    return [ev.PermissionSet(actor_id=actor_id, user=user, level=level)]
