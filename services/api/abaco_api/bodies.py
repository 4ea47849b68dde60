"""What a request body may hold: the parameters of each command, and their description.

The published description of the api is made from these; the rules that JSON Schema cannot say are
in the descriptions and in :mod:`abaco_api.parse`.
"""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from abaco_api.image import MAX_LENGTH
from abaco_proto.ids import NAME_PATTERN

MAX_WORKERS = 1000
EVENT_PATTERN = r"^[A-Za-z0-9_*>.-]{1,255}$"

Name = Annotated[
    str,
    Meta(
        description="Actors of one name are told apart by a number: foo_0, foo_1, …",
        examples=["foo"],
        extra_json_schema={"pattern": NAME_PATTERN},
    ),
]
Image = Annotated[
    str,
    Meta(
        description="A container image, by name as Docker has it.",
        examples=["jstubbs/abaco_test"],
        extra_json_schema={"minLength": 1, "maxLength": MAX_LENGTH},
    ),
]
Description = Annotated[
    str | None, Meta(description="For people.", extra_json_schema={"maxLength": 10_000})
]
Environment = Annotated[
    dict[str, str],
    Meta(
        description="Environment variables of every execution. Names are not empty and hold no "
        "'=' or NUL; MSG and _abaco_* are the platform's. In a form: the JSON text of an object.",
        examples=[{"GREETING": "hello"}],
    ),
]
Stateless = Annotated[
    bool, Meta(description="Whether several workers may run the actor at the same time.")
]
MinWorkers = Annotated[
    int, Meta(description="Workers kept even when nothing waits.", ge=0, le=MAX_WORKERS)
]
MaxWorkers = Annotated[int, Meta(description="Most workers at a time.", ge=1, le=MAX_WORKERS)]


class Registration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of ``POST /actors``."""

    image: Image
    name: Name
    description: Description = None
    default_environment: Environment = {}
    stateless: Stateless = True
    min_workers: MinWorkers | UnsetType = UNSET
    max_workers: MaxWorkers | UnsetType = UNSET


class Update(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of ``PUT /actors/{actor_id}``: what is not named stays as it is."""

    image: Image | UnsetType = UNSET
    name: Name | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    default_environment: Environment | UnsetType = UNSET
    stateless: Stateless | UnsetType = UNSET
    min_workers: MinWorkers | UnsetType = UNSET
    max_workers: MaxWorkers | UnsetType = UNSET


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of ``POST /actors/{actor_id}/messages``."""

    message: Annotated[
        Any,
        Meta(
            description="What the container finds in $MSG: a text as it is, any other JSON value "
            "as its JSON text; at most 131,067 bytes of UTF-8 without NUL.",
            examples=["execute yourself"],
        ),
    ]


class State(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of ``POST /actors/{actor_id}/state``."""

    state: Annotated[
        Any,
        Meta(description="Any JSON value; a form holds a text.", examples=[{"count": 1}]),
    ]


class Scale(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of ``POST /actors/{actor_id}/workers``."""

    num: Annotated[int, Meta(description="At least this many workers.", ge=0, le=MAX_WORKERS)] = 1


class Subscription(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of ``POST /actors/{actor_id}/subscriptions``."""

    event_pattern: Annotated[
        str,
        Meta(
            description="Which events: <actor_id>.<entity>.<verb>, with * for any part.",
            examples=["foo_0.execution.finished"],
            extra_json_schema={"pattern": EVENT_PATTERN},
        ),
    ]


BODIES = (Registration, Update, Message, State, Scale, Subscription)
