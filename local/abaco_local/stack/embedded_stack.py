"""The embedded stack: what ``abaco up``, ``down``, ``start`` and ``stop`` do, in order."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

import abaco_api.api_settings
import abaco_projector.projector_settings
import abaco_scheduler.scheduler_settings
import abaco_worker.worker_settings
from abaco_local import free_ports, stack_identity
from abaco_local.data_folder import DataFolder, read_text, write_private
from abaco_local.local_settings import LocalSettings
from abaco_local.polling import poll_until
from abaco_local.servers import container_engine, machine_check, nats_server, postgres_server
from abaco_local.stack import orphan_processes, process_commands, supervisord
from abaco_local.stack.process_environment import server_environment, service_environment
from abaco_local.stack.readiness import Readiness
from abaco_local.stack.stack_status import RUNNING, running
from abaco_local.stack.supervisor_client import SupervisorClient
from abaco_local.stack_identity import StackIdentity
from abaco_proto import settings
from abaco_proto.errors import Refused, Unavailable

READY_SECONDS = 120
SERVICE_SETTINGS: tuple[type[msgspec.Struct], ...] = (
    abaco_api.api_settings.ApiSettings,
    abaco_scheduler.scheduler_settings.SchedulerSettings,
    abaco_worker.worker_settings.WorkerSettings,
    abaco_projector.projector_settings.ProjectorSettings,
)


class EmbeddedStack:
    """The embedded stack of one data folder."""

    def __init__(
        self,
        folder: DataFolder,
        config: LocalSettings,
        environ: Mapping[str, str],
        report: Callable[[str], object],
    ) -> None:
        """Store the settings; nothing is started."""
        self._folder = folder
        self._config = config
        self._environ = environ
        self._report = report

    def up(self, *, servers_only: bool = False) -> None:
        """Start what is not running, restart what has changed, and wait until all is ready.

        With ``servers_only``, only NATS and Postgres, without any writer.

        Raises:
            Malformed: a setting of any service is wrong; nothing was changed.
            Refused: a port is taken.
            Unavailable: a process does not start; the end of its log.
        """
        self._folder.create()
        with self._folder.locked():
            known = stack_identity.load(self._folder) or stack_identity.create(self._folder)
            self._check_settings(known)
            up = self._is_up(known)
            found = running(known)
            before = {each.name for each in found if each.state == RUNNING}
            if not servers_only:
                self._check_api_port(alive={each.name for each in found if each.pid})
                container_engine.ensure(self._report, self._environ)
                self._report("engine      ready")
                for line in machine_check.shortcomings(
                    self._folder.root, container_engine.read_info()
                ):
                    self._report(line)
            chosen = self._apply_settings(known) if up else self._start_supervisor(known)
            self._start_servers(chosen)
            if not servers_only:
                all_up = before == {*process_commands.START_ORDER}
                self._start_services(chosen, "already up" if all_up else "ready")

    def down(self) -> bool:
        """Stop everything; return whether anything was running. The data stays."""
        if not self._folder.run.exists():
            return False
        with self._folder.locked():
            known = stack_identity.load(self._folder)
            return known is not None and self._stop(known)

    def start(self, name: str) -> None:
        """Start one process and wait until it stays up."""
        known = self._known()
        SupervisorClient(known.socket).start(name)
        Readiness(self._folder, self._config, known).running(name, READY_SECONDS)

    def stop(self, name: str) -> None:
        """Stop one process until it is started again."""
        SupervisorClient(self._known().socket).stop(name)

    def _known(self) -> StackIdentity:
        known = stack_identity.load(self._folder)
        if known is None or not SupervisorClient(known.socket).is_available():
            raise Unavailable("the stack is down: `abaco up` starts it")
        return known

    def _check_settings(self, known: StackIdentity) -> None:
        environ = service_environment(self._environ, self._config, self._folder.root, known)
        for config in SERVICE_SETTINGS:
            settings.read(config, environ)

    def _check_api_port(self, alive: set[str]) -> None:
        """Refuse a port that is taken, unless by an api of this stack, which may be starting."""
        host, port = self._config.api_host, self._config.api_port
        api = process_commands.read(self._folder).get("api")
        own = "api" in alive and api is not None and api.env["ABACO_API_PORT"] == str(port)
        try:
            free = own or free_ports.is_free(port, host)
        except OSError as error:
            raise Refused(
                f"ABACO_API_HOST, ABACO_API_PORT: {host}:{port}: {error.strerror}"
            ) from None
        if not free:
            raise Refused(
                f"ABACO_API_PORT: port {port} on {host} is taken by another program;"
                " set it to a free one"
            )

    def _is_up(self, known: StackIdentity) -> bool:
        """Return whether a supervisor answers; if not, stop what a killed one left running."""
        if SupervisorClient(known.socket).is_available():
            return True
        supervisord.end(self._folder, orphan_processes.STOP_SECONDS)
        count = orphan_processes.stop(known.socket)
        if count:
            self._report(f"recovery    stopped {count} processes whose supervisor was gone")
        return False

    def _start_supervisor(self, known: StackIdentity) -> StackIdentity:
        chosen = stack_identity.for_start(self._folder, self._config, known)
        stack_identity.save(self._folder, chosen)
        postgres_server.initialise(self._folder, chosen)
        root = os.geteuid() == 0
        inside = Path(chosen.socket).parent == self._folder.run
        socket = "run/supervisor.sock" if inside else chosen.socket
        text = supervisord.configuration(socket, root=root)
        self._write_files(chosen)
        write_private(self._folder.supervisord_conf, text)
        supervisord.start(self._folder, server_environment(self._environ))
        if not poll_until(SupervisorClient(chosen.socket).is_available, supervisord.START_SECONDS):
            raise Unavailable(
                f"the supervisor does not answer; see {self._folder.log('supervisord')}"
            )
        return chosen

    def _apply_settings(self, known: StackIdentity) -> StackIdentity:
        """Apply changed settings to a running stack: stop the processes that must restart."""
        chosen = stack_identity.for_running_stack(self._config, known)
        supervisor = SupervisorClient(chosen.socket)
        stack_identity.save(self._folder, chosen)
        for name in self._write_files(chosen):
            self._report(f"{name:<12}has other settings now and is restarted")
            supervisor.stop(name)
        return chosen

    def _write_files(self, chosen: StackIdentity) -> list[str]:
        """Write the files that processes start with; return the processes with changed settings."""
        new = process_commands.commands(self._folder, self._config, chosen, self._environ)
        old = process_commands.read(self._folder)
        write_private(self._folder.commands, msgspec.json.encode(new).decode())
        conf = nats_server.configuration(self._folder, chosen)
        other = conf != read_text(self._folder.nats_conf)
        write_private(self._folder.nats_conf, conf)
        return process_commands.changed_processes(old, new, {"nats"} if other else set())

    def _start_servers(self, chosen: StackIdentity) -> None:
        supervisor = SupervisorClient(chosen.socket)
        ready = Readiness(self._folder, self._config, chosen)
        for name, wait in (("nats", ready.nats), ("postgres", ready.postgres)):
            supervisor.start(name)
            wait(READY_SECONDS)
            self._report(f"{name:<12}ready")

    def _start_services(self, chosen: StackIdentity, state: str) -> None:
        supervisor = SupervisorClient(chosen.socket)
        ready = Readiness(self._folder, self._config, chosen)
        for name in process_commands.SERVICES:
            supervisor.start(name)
        ready.services(READY_SECONDS)
        self._report("services    running")
        ready.api(READY_SECONDS)
        self._report(f"{state:<12}{self._config.api_url}")

    def _stop(self, known: StackIdentity) -> bool:
        supervisor = SupervisorClient(known.socket)
        if not supervisor.is_available():
            supervisord.end(self._folder, orphan_processes.STOP_SECONDS)
            return orphan_processes.stop(known.socket) > 0
        for name in process_commands.STOP_ORDER:
            supervisor.stop(name)
        supervisor.shutdown()
        supervisord.end(self._folder, orphan_processes.STOP_SECONDS)
        orphan_processes.stop(known.socket)
        self._remove_idle_containers(known)
        return True

    def _remove_idle_containers(self, known: StackIdentity) -> None:
        """Remove containers that run no execution."""
        environ = service_environment(self._environ, self._config, self._folder.root, known)
        host_id = environ.get("ABACO_HOST_ID", "")
        count = container_engine.remove_idle_containers(
            host_id, Path(environ.get("ABACO_WORKER_DIR", ""))
        )
        if count:
            self._report(f"engine      {count} waiting containers removed")
