"""Commands: requests for a change, in the imperative. The api decides which events they lead to.

A command is well formed: its input was checked before it is made.
"""

from typing import Any

import msgspec

from abaco_proto.events import Definition


class Command(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """The base class of all commands."""


class RegisterActor(Command, frozen=True, kw_only=True):
    """Register an image as an actor."""

    definition: Definition


class UpdateActor(Command, frozen=True, kw_only=True):
    """Change some fields of a definition; ``changes`` has only fields of ``Definition``."""

    actor_id: str
    changes: dict[str, Any]


class DeleteActor(Command, frozen=True, kw_only=True):
    """Delete an actor."""

    actor_id: str


class SetState(Command, frozen=True, kw_only=True):
    """Replace an actor's state."""

    actor_id: str
    state: Any


class SendMessage(Command, frozen=True, kw_only=True):
    """Put a message into an inbox."""

    actor_id: str
    message: str
    content_type: str
    environment: dict[str, str]
    sender: str | None = None


class Subscribe(Command, frozen=True, kw_only=True):
    """Send an actor the events that match a pattern."""

    actor_id: str
    event_pattern: str


class Unsubscribe(Command, frozen=True, kw_only=True):
    """End a subscription."""

    actor_id: str
    subscription_id: str


class ScaleWorkers(Command, frozen=True, kw_only=True):
    """Keep at least ``num`` workers for an actor."""

    actor_id: str
    num: int


class StopWorker(Command, frozen=True, kw_only=True):
    """Stop one worker as soon as it is idle."""

    actor_id: str
    worker_id: str


class HaltExecution(Command, frozen=True, kw_only=True):
    """End an execution, whatever its state."""

    actor_id: str
    execution_id: str


class PurgeInbox(Command, frozen=True, kw_only=True):
    """End all waiting messages."""

    actor_id: str


class RetryExecution(Command, frozen=True, kw_only=True):
    """Retry an abandoned execution."""

    actor_id: str
    execution_id: str
