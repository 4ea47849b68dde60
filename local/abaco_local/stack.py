"""Up and down: what the commands do, in order."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

import abaco_api.api_settings
import abaco_projector.projector_settings
import abaco_scheduler.scheduler_settings
import abaco_worker.worker_settings
from abaco_local import (
    engine,
    identity,
    machine,
    nats_server,
    orphans,
    ports,
    postgres_server,
    processes,
    supervisord,
)
from abaco_local.config import Config
from abaco_local.control import Control
from abaco_local.environment import of_servers, of_services
from abaco_local.folder import Folder, read_text, write_private
from abaco_local.identity import Identity
from abaco_local.ready import Readiness
from abaco_local.status import RUNNING, running
from abaco_local.wait import until
from abaco_proto import settings
from abaco_proto.errors import Refused, Unavailable

READY_SECONDS = 120
SERVICE_CONFIGS: tuple[type[msgspec.Struct], ...] = (
    abaco_api.api_settings.Config,
    abaco_scheduler.scheduler_settings.SchedulerSettings,
    abaco_worker.worker_settings.Config,
    abaco_projector.projector_settings.ProjectorSettings,
)


class Stack:
    """The embedded stack of one data folder."""

    def __init__(
        self,
        folder: Folder,
        config: Config,
        environ: Mapping[str, str],
        say: Callable[[str], object],
    ) -> None:
        """Remember what is asked for; nothing is touched yet."""
        self._folder = folder
        self._config = config
        self._environ = environ
        self._say = say

    def up(self, *, servers_only: bool = False) -> None:
        """Start what does not run, restart what has other settings now, wait until ready.

        With ``servers_only`` NATS and Postgres alone, with nobody who writes to them.

        Raises:
            Malformed: for a bad setting of any service, before anything is touched.
            Refused: for a port that is taken.
            Unavailable: for what does not start; the end of its log.
        """
        self._folder.create()
        with self._folder.locked():
            known = identity.load(self._folder) or identity.create(self._folder)
            self._check_settings(known)
            up = self._is_up(known)
            found = running(known)
            before = {each.name for each in found if each.state == RUNNING}
            if not servers_only:
                self._check_api_port(alive={each.name for each in found if each.pid})
                engine.ensure(self._say, self._environ)
                self._say("engine      ready")
                for line in machine.shortcomings(self._folder.root, engine.info()):
                    self._say(line)
            chosen = self._at_work(known) if up else self._start_supervisor(known)
            self._start_servers(chosen)
            if not servers_only:
                all_up = before == {*processes.START_ORDER}
                self._start_services(chosen, "already up" if all_up else "ready")

    def down(self) -> bool:
        """Stop everything; return whether there was anything to stop. The data stays."""
        if not self._folder.run.exists():
            return False
        with self._folder.locked():
            known = identity.load(self._folder)
            return known is not None and self._stop(known)

    def start(self, name: str) -> None:
        """Start one process and wait until it stays up."""
        known = self._known()
        Control(known.socket).start(name)
        Readiness(self._folder, self._config, known).running(name, READY_SECONDS)

    def stop(self, name: str) -> None:
        """Stop one process; it stays stopped until it is started."""
        Control(self._known().socket).stop(name)

    def _known(self) -> Identity:
        known = identity.load(self._folder)
        if known is None or not Control(known.socket).answers():
            raise Unavailable("the stack is down: `abaco up` starts it")
        return known

    def _check_settings(self, known: Identity) -> None:
        environ = of_services(self._environ, self._config, self._folder.root, known)
        for config in SERVICE_CONFIGS:
            settings.read(config, environ)

    def _check_api_port(self, alive: set[str]) -> None:
        """An api of ours may listen there already, and be starting still."""
        host, port = self._config.api_host, self._config.api_port
        api = processes.read(self._folder).get("api")
        ours = "api" in alive and api is not None and api.env["ABACO_API_PORT"] == str(port)
        try:
            free = ours or ports.is_free(port, host)
        except OSError as error:
            raise Refused(
                f"ABACO_API_HOST, ABACO_API_PORT: {host}:{port}: {error.strerror}"
            ) from None
        if not free:
            raise Refused(
                f"ABACO_API_PORT: port {port} on {host} is taken by another program;"
                " set it to a free one"
            )

    def _is_up(self, known: Identity) -> bool:
        """Tell whether a supervisor answers; what an earlier one left behind is stopped."""
        if Control(known.socket).answers():
            return True
        supervisord.end(self._folder, orphans.PATIENCE_SECONDS)
        count = orphans.stop(known.socket)
        if count:
            self._say(f"recovery    stopped {count} processes whose supervisor was gone")
        return False

    def _start_supervisor(self, known: Identity) -> Identity:
        chosen = identity.at_rest(self._folder, self._config, known)
        identity.save(self._folder, chosen)
        postgres_server.initialise(self._folder, chosen)
        root = os.geteuid() == 0
        inside = Path(chosen.socket).parent == self._folder.run
        socket = "run/supervisor.sock" if inside else chosen.socket
        text = supervisord.configuration(socket, root=root)
        self._write(chosen)
        write_private(self._folder.supervisord_conf, text)
        supervisord.start(self._folder, of_servers(self._environ))
        if not until(Control(chosen.socket).answers, supervisord.START_SECONDS):
            raise Unavailable(
                f"the supervisor does not answer; see {self._folder.log('supervisord')}"
            )
        return chosen

    def _at_work(self, known: Identity) -> Identity:
        """Take other settings into a running stack: stop what has to start anew with them."""
        chosen = identity.at_work(self._config, known)
        control = Control(chosen.socket)
        identity.save(self._folder, chosen)
        for name in self._write(chosen):
            self._say(f"{name:<12}has other settings now and is restarted")
            control.stop(name)
        return chosen

    def _write(self, chosen: Identity) -> list[str]:
        """Write what the processes start with; return the names of those that changed."""
        new = processes.commands(self._folder, self._config, chosen, self._environ)
        old = processes.read(self._folder)
        write_private(self._folder.commands, msgspec.json.encode(new).decode())
        conf = nats_server.configuration(self._folder, chosen)
        other = conf != read_text(self._folder.nats_conf)
        write_private(self._folder.nats_conf, conf)
        return processes.changed(old, new, {"nats"} if other else set())

    def _start_servers(self, chosen: Identity) -> None:
        control = Control(chosen.socket)
        ready = Readiness(self._folder, self._config, chosen)
        for name, wait in (("nats", ready.nats), ("postgres", ready.postgres)):
            control.start(name)
            wait(READY_SECONDS)
            self._say(f"{name:<12}ready")

    def _start_services(self, chosen: Identity, word: str) -> None:
        control = Control(chosen.socket)
        ready = Readiness(self._folder, self._config, chosen)
        for name in processes.SERVICES:
            control.start(name)
        ready.services(READY_SECONDS)
        self._say("services    running")
        ready.api(READY_SECONDS)
        self._say(f"{word:<12}{self._config.api_url}")

    def _stop(self, known: Identity) -> bool:
        control = Control(known.socket)
        if not control.answers():
            supervisord.end(self._folder, orphans.PATIENCE_SECONDS)
            return orphans.stop(known.socket) > 0
        for name in processes.STOP_ORDER:
            control.stop(name)
        control.shutdown()
        supervisord.end(self._folder, orphans.PATIENCE_SECONDS)
        orphans.stop(known.socket)
        self._remove_waiting(known)
        return True

    def _remove_waiting(self, known: Identity) -> None:
        """Nothing is left running but what somebody's message still runs in."""
        environ = of_services(self._environ, self._config, self._folder.root, known)
        host_id = environ.get("ABACO_HOST_ID", "")
        count = engine.remove_waiting(host_id, Path(environ.get("ABACO_WORKER_DIR", "")))
        if count:
            self._say(f"engine      {count} waiting containers removed")
