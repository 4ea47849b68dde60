"""The parameters of each command in a request body, with their descriptions.

The OpenAPI description is made from these. Rules that JSON Schema cannot express are in the
descriptions and in :mod:`abaco_api.commands.parse`.
"""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from abaco_api.access.domain.nonce_requests import MAX_DESCRIPTION, MAX_USES, UNLIMITED
from abaco_api.access.domain.principal import MAX_USER, Role
from abaco_api.access.domain.token_requests import DEFAULT_DAYS, MAX_DAYS, MAX_NAME
from abaco_api.domain.byte_size import MEBIBYTE, PATTERN
from abaco_api.domain.image_name import MAX_LENGTH
from abaco_proto.events import TYPES, Isolation, PermissionLevel
from abaco_proto.names import NAME_PATTERN

MAX_WORKERS = 1000
MIN_MEMORY_BYTES = 6 * MEBIBYTE
"""The minimum of container engines."""

MAX_BYTES = 2**50
YEAR_SECONDS = 366 * 24 * 60 * 60
EVENT_PATTERN = r"^[A-Za-z0-9_*>.-]{1,255}$"

Name = Annotated[
    str,
    Meta(
        description="The name of the actor. Its id is the name and a number: foo_0, foo_1, …",
        examples=["foo"],
        extra_json_schema={"pattern": NAME_PATTERN},
    ),
]
Image = Annotated[
    str,
    Meta(
        description="The name of a container image, as for Docker.",
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
        description="Environment variables of every execution. Names are not empty and contain no "
        "'=' or NUL; MSG and _abaco_* are reserved. In a form: the JSON text of an object.",
        examples=[{"GREETING": "hello"}],
    ),
]
Stateless = Annotated[
    bool, Meta(description="Whether several workers may run the actor at the same time.")
]
MinWorkers = Annotated[
    int, Meta(description="Workers that are kept even if no message waits.", ge=0, le=MAX_WORKERS)
]
MaxWorkers = Annotated[
    int, Meta(description="The maximum number of workers.", ge=1, le=MAX_WORKERS)
]

# The limits of a run. With null, or an empty text in a form, the host's setting applies.

MemLimit = Annotated[
    Annotated[int, Meta(ge=MIN_MEMORY_BYTES, le=MAX_BYTES)]
    | Annotated[str, Meta(extra_json_schema={"pattern": PATTERN})]
    | None,
    Meta(
        description="The maximum memory of a run, in bytes or as a text: 512m, 2g, 65536k; at "
        "least 6m.",
        examples=["512m"],
    ),
]
MaxCpus = Annotated[
    Annotated[float, Meta(ge=0.01, le=1024)] | None,
    Meta(description="The maximum number of processors of a run, which may be a fraction."),
]
MaxProcesses = Annotated[
    Annotated[int, Meta(ge=1, le=4_194_304)] | None,
    Meta(description="The maximum number of processes and threads of a run."),
]
MaxRunSeconds = Annotated[
    Annotated[float, Meta(gt=0, le=YEAR_SECONDS)] | None,
    Meta(description="The maximum duration of a run."),
]
MaxLogBytes = Annotated[
    Annotated[int, Meta(ge=0, le=64 * MEBIBYTE)] | None,
    Meta(description="The maximum output of a run that is kept; the rest is cut off."),
]
MaxDiskBytes = Annotated[
    Annotated[int, Meta(ge=MEBIBYTE, le=MAX_BYTES)] | None,
    Meta(description="The maximum that a run may write to its file system and its volumes."),
]
LogEx = Annotated[
    Annotated[int, Meta(ge=1, le=100 * YEAR_SECONDS)] | None,
    Meta(description="How long the output of a run is shown after its end."),
]
Privileged = Annotated[
    bool,
    Meta(description="Whether containers are privileged. Needs ABACO_ALLOW_PRIVILEGED."),
]

NoNewPrivileges = Annotated[
    bool,
    Meta(
        description="Whether setuid programs get no additional rights. false, the default of "
        "docker run, needs ABACO_ALLOW_NEW_PRIVILEGES.",
    ),
]
IsolationName = Annotated[
    Annotated[str, Meta(extra_json_schema={"enum": [kind.value for kind in Isolation]})] | None,
    Meta(
        description="What separates a message from the one before it: sandbox, a new sandbox in "
        "the worker's container; container, a container of its own. With null, or an empty text in "
        "a form, the host's setting applies.",
        examples=["container"],
    ),
]


class Registration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of ``POST /actors``."""

    image: Image
    name: Name
    description: Description = None
    default_environment: Environment = {}
    stateless: Stateless = True
    min_workers: MinWorkers | UnsetType = UNSET
    max_workers: MaxWorkers | UnsetType = UNSET
    mem_limit: MemLimit = None
    max_cpus: MaxCpus = None
    max_processes: MaxProcesses = None
    max_run_seconds: MaxRunSeconds = None
    max_log_bytes: MaxLogBytes = None
    max_disk_bytes: MaxDiskBytes = None
    log_ex: LogEx = None
    privileged: Privileged = False
    no_new_privileges: NoNewPrivileges = True
    isolation: IsolationName = None


class Update(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of ``PUT /actors/{actor_id}``: absent ones stay as they are."""

    image: Image | UnsetType = UNSET
    name: Name | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    default_environment: Environment | UnsetType = UNSET
    stateless: Stateless | UnsetType = UNSET
    min_workers: MinWorkers | UnsetType = UNSET
    max_workers: MaxWorkers | UnsetType = UNSET
    mem_limit: MemLimit | UnsetType = UNSET
    max_cpus: MaxCpus | UnsetType = UNSET
    max_processes: MaxProcesses | UnsetType = UNSET
    max_run_seconds: MaxRunSeconds | UnsetType = UNSET
    max_log_bytes: MaxLogBytes | UnsetType = UNSET
    max_disk_bytes: MaxDiskBytes | UnsetType = UNSET
    log_ex: LogEx | UnsetType = UNSET
    privileged: Privileged | UnsetType = UNSET
    no_new_privileges: NoNewPrivileges | UnsetType = UNSET
    isolation: IsolationName | UnsetType = UNSET


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of ``POST /actors/{actor_id}/messages``."""

    message: Annotated[
        Any,
        Meta(
            description="The content of $MSG in the container: a text as it is, any other JSON "
            "value as its JSON text; at most 131,067 bytes of UTF-8 without NUL.",
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

    num: Annotated[
        int, Meta(description="The minimum number of workers.", ge=0, le=MAX_WORKERS)
    ] = 1


class Subscription(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of ``POST /actors/{actor_id}/subscriptions``: one of them, or both."""

    event_pattern: (
        Annotated[
            str,
            Meta(
                description="A pattern of events: <source actor>.<entity>.<verb>; * stands for any "
                "characters of a part, > for all parts that follow. A pattern that no event can "
                "match is refused.",
                examples=["foo_0.execution.finished"],
                extra_json_schema={"pattern": EVENT_PATTERN},
            ),
        ]
        | UnsetType
    ) = UNSET
    event_id: (
        Annotated[
            str,
            Meta(
                description="Only events of exactly this type; without event_pattern, of all "
                "actors.",
                examples=["execution.finished"],
                extra_json_schema={"enum": list(TYPES)},
            ),
        ]
        | UnsetType
    ) = UNSET


class Permission(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of ``POST /actors/{actor_id}/permissions``."""

    user: Annotated[
        str,
        Meta(
            description="The name of a user, or ABACO_WORLD for every user of the tenant.",
            examples=["alice"],
            extra_json_schema={"minLength": 1, "maxLength": MAX_USER},
        ),
    ]
    level: Annotated[
        PermissionLevel, Meta(description="Each level includes those before it; NONE revokes.")
    ]


class TokenParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of ``POST /tokens``."""

    name: Annotated[
        str,
        Meta(
            description="What the token is for.",
            examples=["laptop"],
            extra_json_schema={"minLength": 1, "maxLength": MAX_NAME},
        ),
    ]
    owner: Annotated[
        str, Meta(description="The user it acts for; only an admin names another than itself.")
    ] = ""
    roles: (
        Annotated[
            list[Role],
            Meta(
                description="The roles it has; by default those of its creator. In a form: names "
                "separated by commas."
            ),
        ]
        | None
    ) = None
    read_only: Annotated[bool, Meta(description="Whether it may only read.")] = False
    actors: (
        Annotated[
            list[str],
            Meta(
                description="The ids of the only actors that it reaches. In a form: separated by "
                "commas.",
                examples=[["foo_0"]],
            ),
        ]
        | None
    ) = None
    days: Annotated[
        float, Meta(description="After how many days it expires.", gt=0, le=MAX_DAYS)
    ] = DEFAULT_DAYS


class NonceParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of ``POST /actors/{actor_id}/nonces``."""

    level: Annotated[PermissionLevel, Meta(description="Its level on the actor.")] = (
        PermissionLevel.EXECUTE
    )
    max_uses: Annotated[
        int,
        Meta(
            description="How often it may be used; -1 is any number.",
            ge=UNLIMITED,
            le=MAX_USES,
            extra_json_schema={"not": {"const": 0}},
        ),
    ] = UNLIMITED
    description: Annotated[
        str,
        Meta(description="What it is for.", extra_json_schema={"maxLength": MAX_DESCRIPTION}),
    ] = ""


BODIES = (
    *(Registration, Update, Message, State, Scale, Subscription, Permission),
    *(TokenParameters, NonceParameters),
)
