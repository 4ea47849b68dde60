"""Settings: one frozen struct per service, read once from the environment.

All services of one installation may share one environment. Names that begin with ``ABACO_`` are
checked: one that no service has is a misspelling, and ends the process. A setting is documented by
the ``description`` of its field.

A secret can be read from a file: with ``ABACO_NATS_URL_FILE=/run/secrets/url``, the content of that
file is the value of ``ABACO_NATS_URL``.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from abaco_proto.errors import Malformed
from abaco_proto.names import TENANT_PATTERN

PREFIX = "ABACO_"
FROM_FILE = "_FILE"

NATS_URL_PATTERN = r"^(nats|tls|ws|wss)://[^,\s]+(,\s*(nats|tls|ws|wss)://[^,\s]+)*$"
"""One address, or those of a cluster."""

NAMES = frozenset(
    {
        # every service
        "ABACO_NATS_REPLICAS",
        "ABACO_NATS_URL",
        "ABACO_POSTGRES_DSN",
        "ABACO_TENANT",
        "ABACO_LOG_FORMAT",
        "ABACO_LOG_LEVEL",
        "ABACO_METRICS_HOST",
        "ABACO_METRICS_PORT",
        # api
        "ABACO_ALLOW_NEW_PRIVILEGES",
        "ABACO_ALLOW_PRIVILEGED",
        "ABACO_API_HOST",
        "ABACO_API_PORT",
        "ABACO_APPEND_TIMEOUT_SECONDS",
        "ABACO_AUTH",
        "ABACO_AUTH_FAILURES_PER_MINUTE",
        "ABACO_AUTH_ISSUERS",
        "ABACO_AUTH_OFF_ANYWHERE",
        "ABACO_BODY_MIN_BYTES_PER_SECOND",
        "ABACO_BODY_SECONDS",
        "ABACO_CORS_ORIGINS",
        "ABACO_HEAD_SECONDS",
        "ABACO_HSTS_SECONDS",
        "ABACO_IDEMPOTENCY_SECONDS",
        "ABACO_INIT_COUNT",
        "ABACO_MAX_BODY_BYTES",
        "ABACO_MAX_FOLLOWERS",
        "ABACO_MAX_HOPS",
        "ABACO_MAX_INBOX_MESSAGES",
        "ABACO_MAX_LAG_EVENTS",
        "ABACO_MAX_REPLAYS",
        "ABACO_MAX_REPLAY_SECONDS",
        "ABACO_MAX_REQUESTS",
        "ABACO_MAX_SUBSCRIBERS",
        "ABACO_MAX_TENANT_ACTORS",
        "ABACO_MAX_TENANT_REQUESTS_PER_SECOND",
        "ABACO_MAX_UPLOADS",
        "ABACO_MAX_UPLOAD_BYTES",
        "ABACO_MAX_WORKERS",
        "ABACO_PUBLISHED_HOST",
        "ABACO_PUBLISH_DESCRIPTIONS",
        "ABACO_PUBLISH_METRICS",
        "ABACO_PUBLISH_READINESS",
        "ABACO_QUERY_TIMEOUT_SECONDS",
        "ABACO_READ_WAIT_SECONDS",
        "ABACO_RING_BYTES",
        "ABACO_RING_EVENTS",
        "ABACO_STREAM_HEARTBEAT_SECONDS",
        "ABACO_STREAM_WRITE_SECONDS",
        "ABACO_TRUSTED_PROXIES",
        # scheduler
        "ABACO_HOST_TIMEOUT_SECONDS",
        "ABACO_MAX_ATTEMPTS",
        "ABACO_MAX_TENANT_WORKERS",
        "ABACO_RETRY_MAX_SECONDS",
        "ABACO_RETRY_SECONDS",
        "ABACO_TURN_SECONDS",
        "ABACO_WORKER_RETRY_MAX_SECONDS",
        "ABACO_WORKER_RETRY_SECONDS",
        "ABACO_WORKER_TTL_SECONDS",
        # worker
        "ABACO_CONTAINER_CPUS",
        "ABACO_CONTAINER_MEMORY_BYTES",
        "ABACO_CONTAINER_OPEN_FILES",
        "ABACO_CONTAINER_PROCESSES",
        "ABACO_HALT_GRACE_SECONDS",
        "ABACO_HEARTBEAT_SECONDS",
        "ABACO_HOST_CAPACITY",
        "ABACO_HOST_ID",
        "ABACO_ISOLATION",
        "ABACO_LAUNCHER",
        "ABACO_MAX_DISK_BYTES",
        "ABACO_MAX_LOG_BYTES",
        "ABACO_MAX_RUN_SECONDS",
        "ABACO_NETWORK_BY",
        "ABACO_NETWORK_MODE",
        "ABACO_PULL_POLICY",
        "ABACO_STARTS_AT_ONCE",
        "ABACO_WORKER_DIR",
        # projector
        "ABACO_BATCH_EVENTS",
        # the embedded stack
        "ABACO_DATA_DIR",
        "ABACO_NATS_PORT",
        "ABACO_POSTGRES_PORT",
        "ABACO_TOKEN",
    }
)

T = TypeVar("T", bound=msgspec.Struct)

Port = Annotated[int, Meta(ge=0, le=65535)]

PostgresDsn = Annotated[
    str,
    Meta(
        description="The address of Postgres, which holds the read models.",
        pattern=r"^postgres(ql)?://",
    ),
]

Tenant = Annotated[
    str,
    Meta(
        description="The tenant of all requests while ABACO_AUTH is off, and of the hosts.",
        pattern=TENANT_PATTERN,
    ),
]


AllowNewPrivileges = Annotated[
    bool,
    Meta(
        description="Whether actors may set no_new_privileges to false, so that setuid programs of"
        " their images get the rights of their owner. With ABACO_AUTH=on, only an admin may."
    ),
]
AllowPrivileged = Annotated[
    bool, Meta(description="Whether actors may have privileged containers.")
]


class ServiceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings that every service has."""

    nats_url: Annotated[
        str,
        Meta(
            description="The address of NATS, which holds the log; of a cluster, the addresses of"
            " all servers, separated by commas.",
            pattern=NATS_URL_PATTERN,
        ),
    ] = "nats://127.0.0.1:4222"
    nats_replicas: Annotated[
        Literal[1, 3, 5],
        Meta(description="The number of NATS servers that each keep the whole log: 1, 3 or 5."),
    ] = 1
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="The lowest level of messages that are logged."),
    ] = "info"
    log_format: Annotated[
        Literal["text", "json"],
        Meta(description="The format of log lines: text for people, json for programs."),
    ] = "text"


class MetricsServiceSettings(ServiceSettings, frozen=True, kw_only=True):
    """Settings of services that listen on a port only for metrics."""

    metrics_host: Annotated[
        str, Meta(description="The address that serves the metrics.", min_length=1)
    ] = "127.0.0.1"
    metrics_port: Annotated[
        Port,
        Meta(
            description="The port that serves the metrics; 0 for none. The api serves its metrics"
            " at its own port, as /metrics.",
        ),
    ] = 0


def read(config: type[T], environ: Mapping[str, str]) -> T:
    """Read ``config`` from the ``ABACO_*`` variables of ``environ``.

    The field ``api_port`` has the value of ``ABACO_API_PORT``, or the content of the file named by
    ``ABACO_API_PORT_FILE``, without white space around it. An empty or missing variable means the
    field's default.

    Raises:
        Malformed: the message names the variable and what is expected.
    """
    given = {name: value for name, value in environ.items() if name.startswith(PREFIX) and value}
    for name in sorted(name for name in environ if name.startswith(PREFIX)):
        if _setting(name) not in NAMES:
            raise Malformed(_unknown(name))
    # Only its own files: a service may not be allowed to read the secrets of another.
    names = [name for name in sorted(given) if _field(name) in config.__struct_fields__]
    values = {_field(name): _value(name, given) for name in names}
    try:
        return msgspec.convert(values, config, strict=False)
    except msgspec.ValidationError as error:
        raise Malformed(_bad_value(str(error))) from None


def _setting(name: str) -> str:
    """The setting that a variable is for."""
    return name if name in NAMES else name.removesuffix(FROM_FILE)


def _field(name: str) -> str:
    return _setting(name).removeprefix(PREFIX).lower()


def _value(name: str, given: Mapping[str, str]) -> str:
    """The text of a variable, or of the file it names."""
    setting = _setting(name)
    if name == setting:
        return given[name]
    if setting in given:
        raise Malformed(f"{setting} and {name} are both set: set only one of them")
    try:
        return Path(given[name]).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise Malformed(f"{name}: {given[name]} cannot be read: {error.strerror}") from None
    except ValueError:  # the file is not UTF-8, or its name has a null character
        raise Malformed(f"{name}: {given[name]!r} is no text file") from None


def _unknown(name: str) -> str:
    """The message about an unknown name, with the most similar known one."""
    ending = FROM_FILE if name.endswith(FROM_FILE) else ""
    close = difflib.get_close_matches(name.removesuffix(ending), NAMES, n=1)
    hint = f"; did you mean {close[0]}{ending}?" if close else ""
    return f"{name} is not a setting{hint}"


def _bad_value(text: str) -> str:
    """Turn ``Expected `int`, got `str` - at `$.api_port``` into a line that names the variable."""
    what, _, where = text.partition(" - at `$.")
    name = PREFIX + where.rstrip("`").upper() if where else "the environment"
    return f"{name}: {what[:1].lower()}{what[1:]}"
