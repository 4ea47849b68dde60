"""What runs and where it is reached: the answer of ``abaco status``."""

import re

import msgspec

from abaco_local.config import Config
from abaco_local.control import Control, Process
from abaco_local.folder import Folder
from abaco_local.identity import Identity
from abaco_local.ports import LOOPBACK
from abaco_local.processes import START_ORDER, Command, read
from abaco_proto.permissions import READER

RUNNING, STOPPED = "RUNNING", "STOPPED"


class Service(msgspec.Struct, frozen=True):
    """One process, and where its metrics are read: nowhere, if it is a server."""

    name: str
    pid: int | None
    state: str
    metrics_url: str | None


class Status(msgspec.Struct, frozen=True):
    """The whole answer; the addresses hold their passwords."""

    services: list[Service]
    api_url: str
    nats_url: str | None
    nats_reader_url: str | None
    postgres_dsn: str | None
    data_dir: str


def status(
    config: Config, folder: Folder, identity: Identity | None, processes: list[Process]
) -> Status:
    """Return the answer; a process that the supervisor does not know is stopped."""
    known = {process.name: process for process in processes}
    listening = configured(read(folder).get("api")) if processes else None
    api_url = (listening or config).api_url
    found = [known.get(name, Process(name, None, STOPPED)) for name in START_ORDER]
    return Status(
        services=[
            Service(each.name, each.pid, each.state, metrics_url(each.name, api_url, identity))
            for each in found
        ],
        api_url=api_url,
        nats_url=identity.nats_url if identity else None,
        nats_reader_url=identity.nats_url_of(READER) if identity else None,
        postgres_dsn=identity.postgres_dsn if identity else None,
        data_dir=str(folder.root),
    )


def metrics_url(name: str, api_url: str, identity: Identity | None) -> str | None:
    """Return where the metrics of a process are read while it runs."""
    if name == "api":
        return f"{api_url}/metrics"
    port = identity.metrics_ports.get(name) if identity else None
    return f"http://{LOOPBACK}:{port}/metrics" if port else None


def configured(api: Command | None) -> Config | None:
    """Return where the API was told to listen, which is what counts while it runs."""
    if api is None:
        return None
    return Config(api_host=api.env["ABACO_API_HOST"], api_port=int(api.env["ABACO_API_PORT"]))


def running(identity: Identity | None) -> list[Process]:
    """Return what the supervisor says, or nothing if there is none."""
    control = Control(identity.socket) if identity else None
    found = control.processes() if control and control.answers() else []
    return [process for process in found if process.name in START_ORDER]


def table(answer: Status) -> str:
    """Return the answer for people: passwords masked."""
    services = [f"{each.name:<12}{each.state:<12}{each.pid or '-'}" for each in answer.services]
    where = {
        "api": answer.api_url,
        "nats": masked(answer.nats_url),
        "postgres": masked(answer.postgres_dsn),
        "data": answer.data_dir,
    }
    places = [f"{name:<12}{place}" for name, place in where.items()]
    return "\n".join([f"{'NAME':<12}{'STATE':<12}PID", *services, "", *places])


def masked(url: str | None) -> str:
    """Return an address without its password."""
    return re.sub(r"(://[^:@/]*):[^@]*@", r"\1:***@", url) if url else "-"
