"""The supervised processes: names, order, command lines and environments."""

import sys
from collections.abc import Collection, Mapping

import msgspec

from abaco_local.data_folder import DataFolder, read_text
from abaco_local.local_settings import LocalSettings
from abaco_local.servers import nats_server, postgres_server
from abaco_local.stack import process_environment
from abaco_local.stack_identity import StackIdentity
from abaco_proto.settings import FROM_FILE
from abaco_worker.launcher import build

LAUNCHER = "ABACO_LAUNCHER"
SERVERS = ("nats", "postgres")
SERVICES = ("projector", "scheduler", "worker", "api")
# The API starts last and stops first: it accepts commands only while all other services run.
START_ORDER = (*SERVERS, *SERVICES)
STOP_ORDER = ("api", "scheduler", "worker", "projector", *SERVERS)


class StopMethod(msgspec.Struct, frozen=True):
    """The signal that stops a process, and the seconds until it is killed."""

    signal: str = "TERM"
    seconds: int = 20


STOP_METHODS = {
    # Closing thousands of consumers takes long; after a kill, the recovery would take longer.
    "nats": StopMethod(seconds=180),
    # TERM would wait until every client disconnects; INT disconnects them and checkpoints.
    "postgres": StopMethod(signal="INT", seconds=60),
}


class Command(msgspec.Struct, frozen=True):
    """One process, as ``launch`` starts it."""

    argv: list[str]
    env: dict[str, str]


def read(folder: DataFolder) -> dict[str, Command]:
    """Return the commands that the last ``up`` wrote, by name; empty before the first."""
    text = read_text(folder.commands)
    return msgspec.json.decode(text, type=dict[str, Command]) if text else {}


def stop_method(name: str) -> StopMethod:
    """Return how a process is stopped."""
    return STOP_METHODS.get(name, StopMethod())


def commands(
    folder: DataFolder, config: LocalSettings, identity: StackIdentity, environ: Mapping[str, str]
) -> dict[str, Command]:
    """Return the commands of all processes, by name, in the order of starting."""
    servers = process_environment.server_environment(environ)
    services = process_environment.service_environment(environ, config, folder.root, identity)
    return {
        "nats": Command(nats_server.argv(folder), servers),
        "postgres": Command(postgres_server.argv(folder, identity), servers),
        **{
            name: Command(
                [sys.executable, "-P", "-m", f"abaco_{name}"],
                services | _own_environment(name, identity) | _launcher_environment(name, services),
            )
            for name in SERVICES
        },
    }


def _own_environment(name: str, identity: StackIdentity) -> dict[str, str]:
    """Return the variables of one service."""
    own = {"ABACO_NATS_URL": identity.nats_url_of(name)}
    if port := identity.metrics_ports.get(name):
        own["ABACO_METRICS_PORT"] = str(port)
    return own


def _launcher_environment(name: str, services: Mapping[str, str]) -> dict[str, str]:
    """Return the launcher for the worker; a launcher that is built later restarts the worker."""
    configured = services.get(LAUNCHER) or f"{LAUNCHER}{FROM_FILE}" in services
    found = build.find() if name == "worker" and not configured else None
    return {LAUNCHER: str(found)} if found is not None else {}


def changed_processes(
    old: Mapping[str, Command], new: Mapping[str, Command], changed_files: Collection[str] = ()
) -> list[str]:
    """Return the names of processes with changed settings, in the order of stopping.

    ``changed_files`` are processes whose configuration file has changed.
    """
    return [
        name
        for name in STOP_ORDER
        if name in changed_files or _settings(old.get(name)) != _settings(new.get(name))
    ]


def _settings(command: Command | None) -> tuple[list[str], dict[str, str]] | None:
    """Return what requires a restart: not, for example, another PATH of another terminal."""
    if command is None:
        return None
    names = [name for name in command.env if name.startswith(process_environment.SERVICE_PREFIXES)]
    return command.argv, {name: command.env[name] for name in names}
