"""The plugs: kill -9 for one of the processes of a stack, its engine, or one of its containers."""

import asyncio
import os
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path

import docker
import docker.errors
import psutil

from abaco_local import stack_identity
from abaco_local.data_folder import DataFolder
from abaco_local.stack.supervisor_client import SupervisorClient
from abaco_proto.errors import Unavailable
from engine_server import EngineServer
from fault.mixer.holdings import launcher_command
from fault.mixer.plan import Plan, Plug


class Plugs:
    """Pulls them. Processes come back by their supervisor, the engine by us."""

    def __init__(self, folder: Path, engine: EngineServer) -> None:
        """``folder`` is the data folder of the stack."""
        known = stack_identity.load(DataFolder(folder))
        assert known is not None
        self._control = SupervisorClient(known.socket)
        self._engine = engine
        self._launched = launcher_command(folder / "worker")
        self.pulled: Counter[str] = Counter()

    async def run(self, plan: Plan) -> None:
        """Pull each when its time has come. An engine that is away cannot lose a container."""
        clock = asyncio.get_running_loop().time
        began = clock()
        for plug in plan.plugs:
            await asyncio.sleep(max(0.0, began + plug.at - clock()))
            self.pulled[plug.target] += await self._pull(plug)

    def kill(self, *names: str) -> None:
        """Kill processes of the stack by name, out of turn."""
        for name in names:
            assert self._kill_process(name), name

    async def _pull(self, plug: Plug) -> bool:
        match plug.target:
            case "dockerd":
                await asyncio.to_thread(self._engine.kill)
                await asyncio.sleep(plug.down_seconds)
                await asyncio.to_thread(self._engine.start)
                return True
            case "container":
                return await asyncio.to_thread(self._kill_container, plug.choice)
            case "launcher":
                return self._kill_launcher(plug.choice)
        return self._kill_process(plug.target)

    def _kill_process(self, name: str) -> bool:
        with suppress(ProcessLookupError, Unavailable):
            pid = self._control.process(name).pid
            if pid:
                os.kill(pid, signal.SIGKILL)
                return True
        return False

    def _kill_launcher(self, choice: float) -> bool:
        with suppress(psutil.Error, ProcessLookupError):
            found = psutil.process_iter(["cmdline"])
            mine = [
                each.pid for each in found if (each.info["cmdline"] or [])[1:] == self._launched
            ]
            if mine:
                os.kill(sorted(mine)[int(choice * len(mine))], signal.SIGKILL)
                return True
        return False

    def _kill_container(self, choice: float) -> bool:
        """The first process of a container, killed from outside: the engine sees it end."""
        client = docker.APIClient(base_url=self._engine.url, version="1.40", timeout=30)
        try:
            running = sorted(found["Id"] for found in client.containers())
            if running:
                chosen = running[int(choice * len(running))]
                pid = client.inspect_container(chosen)["State"]["Pid"]
                if pid > 0:  # one that has ended meanwhile has 0, which would be all of us
                    os.kill(pid, signal.SIGKILL)
                    return True
        except (docker.errors.DockerException, OSError):
            pass
        finally:
            client.close()
        return False
