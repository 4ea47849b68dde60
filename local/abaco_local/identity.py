"""What a data folder chose once and keeps: its passwords, its ports, the id of its host.

The host's id is the folder's, not the machine's: the worker takes every container labelled with
its id for its own, and two stacks on one machine must not remove one another's.
"""

import hmac
import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from abaco_local import ports
from abaco_local.config import Config
from abaco_local.folder import Folder, read_text, write_private
from abaco_proto.errors import Refused

WATCHED = ("projector", "scheduler", "worker")
"""The services that have a port for nothing but their metrics."""

ADMIN = "abaco"
"""The NATS user of the data folder's owner."""

# A Unix socket's path has at most 107 bytes; supervisord binds `<path>.<its pid>` first.
LONGEST_SOCKET = 107 - len(".4194304")


class Identity(msgspec.Struct, frozen=True):
    """The values, as they are kept in ``identity.json``."""

    host_id: str
    nats_password: str
    postgres_password: str
    nats_port: int
    postgres_port: int
    socket: str
    metrics_ports: dict[str, int] = {}
    """Where the metrics of each service are read, by name; the api's are at its own port."""

    @property
    def nats_url(self) -> str:
        """The log's address for the owner of the data folder, who may do everything."""
        return self._nats_url(ADMIN, self.nats_password)

    def nats_url_of(self, user: str) -> str:
        """The log's address for one of the users of :mod:`abaco_proto.permissions`."""
        return self._nats_url(user, self.nats_password_of(user))

    def nats_password_of(self, user: str) -> str:
        """The password of one user. It follows from the owner's, and does not lead back to it."""
        return hmac.digest(self.nats_password.encode(), user.encode(), "sha256").hex()

    def _nats_url(self, user: str, password: str) -> str:
        return f"nats://{user}:{password}@{ports.LOOPBACK}:{self.nats_port}"

    @property
    def postgres_dsn(self) -> str:
        """The database's address, with its password."""
        account = f"abaco:{self.postgres_password}"
        return f"postgresql://{account}@{ports.LOOPBACK}:{self.postgres_port}/abaco"


def load(folder: Folder) -> Identity | None:
    """Return what the folder remembers, or None before its first ``up``.

    Raises:
        Refused: if the file cannot be read; then nobody should choose other passwords silently.
    """
    text = read_text(folder.identity)
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=Identity)
    except msgspec.DecodeError as error:
        raise Refused(f"{folder.identity} is damaged: {error}") from None


def save(folder: Folder, identity: Identity) -> None:
    """Keep it in the folder."""
    write_private(folder.identity, msgspec.json.encode(identity).decode())


def create(folder: Folder) -> Identity:
    """Choose everything but the ports."""
    return Identity(
        host_id=f"h-{secrets.token_hex(4)}",
        nats_password=secrets.token_urlsafe(24),
        postgres_password=secrets.token_urlsafe(24),
        nats_port=0,
        postgres_port=0,
        socket=_socket(folder),
    )


def at_rest(
    folder: Folder, config: Config, old: Identity, free: Callable[[int], bool] = ports.is_free
) -> Identity:
    """Return the identity to start with: chosen again is what cannot be used any more."""
    nats = ports.choose("ABACO_NATS_PORT", config.nats_port, old.nats_port, free)
    postgres = ports.choose(
        "ABACO_POSTGRES_PORT",
        config.postgres_port,
        old.postgres_port,
        lambda port: port != nats and free(port),
    )
    metrics = metrics_ports(old, {nats, postgres, config.api_port}, free)
    socket = old.socket if _is_ours(folder, Path(old.socket)) else _socket(folder)
    return msgspec.structs.replace(
        old, nats_port=nats, postgres_port=postgres, socket=socket, metrics_ports=metrics
    )


def metrics_ports(
    old: Identity, taken: set[int], free: Callable[[int], bool] = ports.is_free
) -> dict[str, int]:
    """Return a port for the metrics of each service that has no other."""
    chosen: dict[str, int] = {}

    def usable(port: int) -> bool:
        return port not in {*taken, *chosen.values()} and free(port)

    for name in WATCHED:
        old_port = old.metrics_ports.get(name, 0)
        chosen[name] = ports.choose(f"the metrics of {name}", 0, old_port, usable)
    return chosen


def at_work(config: Config, old: Identity) -> Identity:
    """Return the identity of a running stack, with the ports that are asked for now."""
    return msgspec.structs.replace(
        old,
        nats_port=config.nats_port or old.nats_port,
        postgres_port=config.postgres_port or old.postgres_port,
    )


def _is_ours(folder: Folder, socket: Path) -> bool:
    """Tell whether the place is still there, still private, and this folder's."""
    inside = folder.run / "supervisor.sock"
    if socket == inside:
        return True
    # Elsewhere is right as long as the folder has not moved to a place with a shorter path.
    needed = len(str(inside).encode()) > LONGEST_SOCKET
    return needed and socket.parent.is_dir() and socket.parent.stat().st_uid == os.geteuid()


def _socket(folder: Folder) -> str:
    inside = str(folder.run / "supervisor.sock")
    if len(inside.encode()) <= LONGEST_SOCKET:
        return inside
    return str(Path(tempfile.mkdtemp(prefix="abaco-")) / "supervisor.sock")
