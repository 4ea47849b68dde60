"""The passwords, ports and host id of a data folder, chosen once and stored.

The host id belongs to the folder, not to the machine: the worker manages every container with the
label of its host id, and two stacks on one machine must not remove each other's containers.
"""

import hmac
import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from abaco_local import free_ports
from abaco_local.data_folder import DataFolder, read_text, write_private
from abaco_local.local_settings import LocalSettings
from abaco_proto.errors import Refused

SERVICES_WITH_METRICS_PORT = ("projector", "scheduler", "worker")
"""The services that listen on a port only for metrics."""

ADMIN = "abaco"
"""The NATS user of the data folder's owner."""

# The path of a Unix socket has at most 107 bytes; supervisord first binds `<path>.<its pid>`.
MAX_SOCKET_BYTES = 107 - len(".4194304")


class StackIdentity(msgspec.Struct, frozen=True):
    """The values in ``identity.json``."""

    host_id: str
    nats_password: str
    postgres_password: str
    nats_port: int
    postgres_port: int
    socket: str
    metrics_ports: dict[str, int] = {}
    """The metrics port of each service, by name; the api serves its metrics at its own port."""

    @property
    def nats_url(self) -> str:
        """The address of the log for the owner of the data folder, with all permissions."""
        return self._nats_url(ADMIN, self.nats_password)

    def nats_url_of(self, user: str) -> str:
        """Return the address of the log for a user of :mod:`abaco_proto.permissions`."""
        return self._nats_url(user, self.nats_password_of(user))

    def nats_password_of(self, user: str) -> str:
        """Return the password of a user: a digest of the owner's password."""
        return hmac.digest(self.nats_password.encode(), user.encode(), "sha256").hex()

    def _nats_url(self, user: str, password: str) -> str:
        return f"nats://{user}:{password}@{free_ports.LOOPBACK}:{self.nats_port}"

    @property
    def postgres_dsn(self) -> str:
        """The address of the database, with its password."""
        account = f"abaco:{self.postgres_password}"
        return f"postgresql://{account}@{free_ports.LOOPBACK}:{self.postgres_port}/abaco"


def load(folder: DataFolder) -> StackIdentity | None:
    """Return the stored identity, or None before the first ``up``.

    Raises:
        Refused: the file cannot be read. New passwords would not match the data.
    """
    text = read_text(folder.identity)
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=StackIdentity)
    except msgspec.DecodeError as error:
        raise Refused(f"{folder.identity} is damaged: {error}") from None


def save(folder: DataFolder, identity: StackIdentity) -> None:
    """Store the identity in the folder."""
    write_private(folder.identity, msgspec.json.encode(identity).decode())


def create(folder: DataFolder) -> StackIdentity:
    """Return a new identity, without ports."""
    return StackIdentity(
        host_id=f"h-{secrets.token_hex(4)}",
        nats_password=secrets.token_urlsafe(24),
        postgres_password=secrets.token_urlsafe(24),
        nats_port=0,
        postgres_port=0,
        socket=_socket(folder),
    )


def for_start(
    folder: DataFolder,
    config: LocalSettings,
    old: StackIdentity,
    free: Callable[[int], bool] = free_ports.is_free,
) -> StackIdentity:
    """Return the identity for a start; taken ports and unusable sockets are replaced."""
    nats = free_ports.choose_port("ABACO_NATS_PORT", config.nats_port, old.nats_port, free)
    postgres = free_ports.choose_port(
        "ABACO_POSTGRES_PORT",
        config.postgres_port,
        old.postgres_port,
        lambda port: port != nats and free(port),
    )
    metrics = metrics_ports(old, {nats, postgres, config.api_port}, free)
    socket = old.socket if _is_usable(folder, Path(old.socket)) else _socket(folder)
    return msgspec.structs.replace(
        old, nats_port=nats, postgres_port=postgres, socket=socket, metrics_ports=metrics
    )


def metrics_ports(
    old: StackIdentity, taken: set[int], free: Callable[[int], bool] = free_ports.is_free
) -> dict[str, int]:
    """Return a metrics port for each service that has no other port."""
    chosen: dict[str, int] = {}

    def usable(port: int) -> bool:
        return port not in {*taken, *chosen.values()} and free(port)

    for name in SERVICES_WITH_METRICS_PORT:
        old_port = old.metrics_ports.get(name, 0)
        chosen[name] = free_ports.choose_port(f"the metrics of {name}", 0, old_port, usable)
    return chosen


def for_running_stack(config: LocalSettings, old: StackIdentity) -> StackIdentity:
    """Return the identity of a running stack, with the ports of the settings."""
    return msgspec.structs.replace(
        old,
        nats_port=config.nats_port or old.nats_port,
        postgres_port=config.postgres_port or old.postgres_port,
    )


def _is_usable(folder: DataFolder, socket: Path) -> bool:
    """Return whether the socket's folder exists, is private, and is still needed."""
    inside = folder.run / "supervisor.sock"
    if socket == inside:
        return True
    # A socket elsewhere is right unless the data folder has moved to a shorter path.
    needed = len(str(inside).encode()) > MAX_SOCKET_BYTES
    return needed and socket.parent.is_dir() and socket.parent.stat().st_uid == os.geteuid()


def _socket(folder: DataFolder) -> str:
    inside = str(folder.run / "supervisor.sock")
    if len(inside.encode()) <= MAX_SOCKET_BYTES:
        return inside
    return str(Path(tempfile.mkdtemp(prefix="abaco-")) / "supervisor.sock")
