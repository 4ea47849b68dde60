"""The state and the addresses of the stack: the answer of ``abaco status``."""

import re

import msgspec

from abaco_local.data_folder import DataFolder
from abaco_local.free_ports import LOOPBACK
from abaco_local.local_settings import LocalSettings
from abaco_local.stack.process_commands import START_ORDER, Command, read
from abaco_local.stack.supervisor_client import SupervisedProcess, SupervisorClient
from abaco_local.stack_identity import StackIdentity
from abaco_proto.permissions import READER

RUNNING, STOPPED = "RUNNING", "STOPPED"


class ServiceStatus(msgspec.Struct, frozen=True):
    """One process; ``metrics_url`` is None for NATS and Postgres."""

    name: str
    pid: int | None
    state: str
    metrics_url: str | None


class Status(msgspec.Struct, frozen=True):
    """The whole answer; its addresses contain passwords."""

    services: list[ServiceStatus]
    api_url: str
    nats_url: str | None
    nats_reader_url: str | None
    postgres_dsn: str | None
    data_dir: str


def status(
    config: LocalSettings,
    folder: DataFolder,
    identity: StackIdentity | None,
    processes: list[SupervisedProcess],
) -> Status:
    """Return the answer; a process that the supervisor does not know is stopped."""
    known = {process.name: process for process in processes}
    listening = api_settings(read(folder).get("api")) if processes else None
    api_url = (listening or config).api_url
    found = [known.get(name, SupervisedProcess(name, None, STOPPED)) for name in START_ORDER]
    return Status(
        services=[
            ServiceStatus(
                each.name, each.pid, each.state, metrics_url(each.name, api_url, identity)
            )
            for each in found
        ],
        api_url=api_url,
        nats_url=identity.nats_url if identity else None,
        nats_reader_url=identity.nats_url_of(READER) if identity else None,
        postgres_dsn=identity.postgres_dsn if identity else None,
        data_dir=str(folder.root),
    )


def metrics_url(name: str, api_url: str, identity: StackIdentity | None) -> str | None:
    """Return the address of a process's metrics."""
    if name == "api":
        return f"{api_url}/metrics"
    port = identity.metrics_ports.get(name) if identity else None
    return f"http://{LOOPBACK}:{port}/metrics" if port else None


def api_settings(api: Command | None) -> LocalSettings | None:
    """Return the address that a running API was started with."""
    if api is None:
        return None
    return LocalSettings(
        api_host=api.env["ABACO_API_HOST"], api_port=int(api.env["ABACO_API_PORT"])
    )


def running(identity: StackIdentity | None) -> list[SupervisedProcess]:
    """Return the processes of the supervisor; empty if it does not answer."""
    supervisor = SupervisorClient(identity.socket) if identity else None
    found = supervisor.processes() if supervisor and supervisor.is_available() else []
    return [process for process in found if process.name in START_ORDER]


def table(answer: Status) -> str:
    """Return the answer as text, with masked passwords."""
    services = [f"{each.name:<12}{each.state:<12}{each.pid or '-'}" for each in answer.services]
    addresses = {
        "api": answer.api_url,
        "nats": mask_password(answer.nats_url),
        "postgres": mask_password(answer.postgres_dsn),
        "data": answer.data_dir,
    }
    lines = [f"{name:<12}{address}" for name, address in addresses.items()]
    return "\n".join([f"{'NAME':<12}{'STATE':<12}PID", *services, "", *lines])


def mask_password(url: str | None) -> str:
    """Return an address without its password."""
    return re.sub(r"(://[^:@/]*):[^@]*@", r"\1:***@", url) if url else "-"
