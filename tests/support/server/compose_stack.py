"""The whole system in containers, by ``compose.yaml``, as a project and on ports of its own."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import docker
import pytest

from abaco_proto.envelope import Recorded
from servers import free_port, one_at_a_time
from stack import Stack, eventually, read_log

ROOT = Path(__file__).parents[3]
STAND_INS = Path(os.environ.get("STAND_INS", ROOT.parent / "shared" / "stand-ins" / "build"))
"""A program that makes local images of the names it is given, where no registry is reached."""

UP_SECONDS = 900
SERVICES = (
    *("nginx", "api-1", "api-2", "scheduler", "projector", "worker"),
    *("nats", "postgres"),
)


class ComposeStack(Stack):
    """Its data lies in the engine's volumes; ``folder`` holds its secrets alone."""

    def __init__(self, folder: Path, project: str, *more: str) -> None:
        """Nothing runs yet. ``more`` are files that change what ``compose.yaml`` says."""
        super().__init__(folder)
        self.secrets = folder
        self._environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith("ABACO_")},
            "COMPOSE_FILE": os.pathsep.join(["compose.yaml", *more]),
            "COMPOSE_PROJECT_NAME": project,
            "SECRETS_DIR": str(folder),
            "ABACO_API_PORT": str(self.port),
            "ABACO_NATS_PORT": str(free_port()),
        }

    @property
    def reader_url(self) -> str:
        """The address of the log for a user who may only read."""
        return (self.secrets / "nats_reader_url").read_text().strip()

    def events(self) -> list[Recorded]:
        """The whole log, as a reader sees it."""
        return read_log(self.reader_url)

    def compose(self, *words: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Run ``local/compose`` to its end."""
        return subprocess.run(
            [ROOT / "local" / "compose", *words],
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def up(self) -> None:
        with one_at_a_time("compose"):  # two builds of the same images take twice as long
            done = self.compose("up", "-d", "--build", seconds=UP_SECONDS)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]

    def down(self) -> None:
        done = self.compose("down", seconds=120)
        assert done.returncode == 0, done.stderr

    def remove(self) -> None:
        """Leave nothing: neither containers of ours nor of actors, nor the data."""
        self.compose("down", "--volumes", "--remove-orphans", seconds=120)
        for name in ("host_id", "host_id_2"):
            host_id = (self.secrets / name).read_text().strip()
            for container in containers(f"abaco.host_id={host_id}"):
                container.remove(force=True)

    def container(self, service: str, number: int = 1) -> Any:
        """The container of a service; ``number`` counts them from 1 where it has several."""
        [found] = containers(
            f"com.docker.compose.project={self._environ['COMPOSE_PROJECT_NAME']}",
            f"com.docker.compose.service={service}",
            f"com.docker.compose.container-number={number}",
        )
        return found

    def health(self, service: str) -> str:
        """What the engine found at its last check."""
        return str(self.container(service).attrs["State"]["Health"]["Status"])

    def said(self, service: str) -> str:
        """The output of a service."""
        return str(self.container(service).logs().decode(errors="replace"))

    def proc_status(self, service: str) -> dict[str, str]:
        """What the kernel says of the first process of a service."""
        said: list[str] = []

        def status() -> dict[str, str] | None:
            done = self.container(service).exec_run(["cat", "/proc/1/status"])
            said[:] = [done.output.decode()]
            found = dict(re.findall(r"^(\w+):\s*(.*)$", said[0], flags=re.MULTILINE))
            return found if done.exit_code == 0 and "NoNewPrivs" in found else None

        try:  # an engine that is busy may refuse to start a process in a container
            found = eventually(status, what=f"the status of {service}")
        except AssertionError as error:
            raise AssertionError(f"{error}: {said}") from None
        assert found is not None
        return found


def containers(*labels: str) -> list[Any]:
    """All containers with these labels, whether they run or not."""
    client = docker.from_env()
    return list(client.containers.list(all=True, filters={"label": list(labels)}))


def need_images() -> None:
    """Have the public images that compose.yaml and the recipes name.

    Where there is neither a stand-in nor a registry, the test cannot run: in CI that is a failure.
    """
    with one_at_a_time("images"):
        _make_images()


def _make_images() -> None:
    missing = [image for image in sorted(public_images()) if not has_image(image)]
    if not missing:
        return
    if STAND_INS.exists():
        done = subprocess.run([STAND_INS, *missing], timeout=900, check=False)
    else:
        pulls = "".join(f"docker pull -q {image} && " for image in missing)
        done = subprocess.run(["sh", "-c", f"{pulls}true"], timeout=900, check=False)
    if done.returncode:
        word = f"no {', '.join(missing)}: neither {STAND_INS} (STAND_INS) nor a registry has them"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(word)


def public_images() -> set[str]:
    """The images that we do not build."""
    recipes = [*ROOT.glob("services/*/Dockerfile"), *ROOT.glob("compose/*.Dockerfile")]
    named = [re.findall(r"^FROM (\S+)", path.read_text(), flags=re.MULTILINE) for path in recipes]
    named.append(
        re.findall(r"^    image: (\S+)", (ROOT / "compose.yaml").read_text(), re.MULTILINE)
    )
    return {image for images in named for image in images if ":" in image}


def has_image(name: str) -> bool:
    """Whether the engine has an image."""
    return bool(docker.from_env().images.list(name=name))


__all__ = ["SERVICES", "ComposeStack", "need_images"]
