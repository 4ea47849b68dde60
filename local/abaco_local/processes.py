"""The supervised processes: their names, their order, and what each of them is."""

import sys
from collections.abc import Collection, Mapping

import msgspec

from abaco_local import environment, nats_server, postgres_server
from abaco_local.config import Config
from abaco_local.folder import Folder, read_text
from abaco_local.identity import Identity
from abaco_proto.settings import FROM_FILE
from abaco_worker.launcher import build

LAUNCHER = "ABACO_LAUNCHER"
SERVERS = ("nats", "postgres")
SERVICES = ("projector", "scheduler", "worker", "api")
# In the order of starting. No new commands are taken in before their work can be done, and none
# while it is being stopped.
START_ORDER = (*SERVERS, *SERVICES)
STOP_ORDER = ("api", "scheduler", "worker", "projector", *SERVERS)


class Stop(msgspec.Struct, frozen=True):
    """How a process is asked to end, and after how many seconds it is made to."""

    signal: str = "TERM"
    seconds: int = 20


STOPS = {
    # Closing thousands of consumers takes the server its time; killing it would cost more later.
    "nats": Stop(seconds=180),
    # TERM would wait for every client to go; INT ends them and writes a checkpoint.
    "postgres": Stop(signal="INT", seconds=60),
}


class Command(msgspec.Struct, frozen=True):
    """One process, as ``launch`` becomes it."""

    argv: list[str]
    env: dict[str, str]


def read(folder: Folder) -> dict[str, Command]:
    """Return what the last ``up`` wrote, by name; nothing before the first."""
    text = read_text(folder.commands)
    return msgspec.json.decode(text, type=dict[str, Command]) if text else {}


def stop_of(name: str) -> Stop:
    """Return how a process is stopped."""
    return STOPS.get(name, Stop())


def commands(
    folder: Folder, config: Config, identity: Identity, environ: Mapping[str, str]
) -> dict[str, Command]:
    """Return what every process is, by name, in the order of starting."""
    servers = environment.of_servers(environ)
    services = environment.of_services(environ, config, folder.root, identity)
    return {
        "nats": Command(nats_server.argv(folder), servers),
        "postgres": Command(postgres_server.argv(folder, identity), servers),
        **{
            name: Command(
                [sys.executable, "-P", "-m", f"abaco_{name}"],
                services | _own(name, identity) | _launcher(name, services),
            )
            for name in SERVICES
        },
    }


def _own(name: str, identity: Identity) -> dict[str, str]:
    """Return what is one service's alone."""
    own = {"ABACO_NATS_URL": identity.nats_url_of(name)}
    if port := identity.metrics_ports.get(name):
        own["ABACO_METRICS_PORT"] = str(port)
    return own


def _launcher(name: str, services: Mapping[str, str]) -> dict[str, str]:
    """Return which launcher the worker gets: one that is built later makes it another process."""
    said = services.get(LAUNCHER) or f"{LAUNCHER}{FROM_FILE}" in services
    found = build.find() if name == "worker" and not said else None
    return {LAUNCHER: str(found)} if found is not None else {}


def changed(
    old: Mapping[str, Command], new: Mapping[str, Command], others: Collection[str] = ()
) -> list[str]:
    """Return the names of what has other settings than it had, in the order of stopping.

    ``others`` are those of which the caller knows that a file of theirs is another.
    """
    return [
        name
        for name in STOP_ORDER
        if name in others or _settings(old.get(name)) != _settings(new.get(name))
    ]


def _settings(command: Command | None) -> tuple[list[str], dict[str, str]] | None:
    """Return what makes a difference: another terminal has another PATH, and nothing restarts."""
    if command is None:
        return None
    names = [name for name in command.env if name.startswith(environment.OF_SERVICES)]
    return command.argv, {name: command.env[name] for name in names}
