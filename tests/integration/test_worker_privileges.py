"""Setuid programs have their owner's rights only if the actor and the host allow it."""

import subprocess
from pathlib import Path

import pytest

import builders as b
import images
from abaco_proto import events as ev
from integration.worker_world import MODES, world_on
from servers import NatsServer

IMAGE = "abaco-test/setuid"
PROGRAM = """\
#include <stdio.h>
#include <unistd.h>
int main(void) { return printf("%u %u\\n", getuid(), geteuid()) < 0; }
"""
RECIPE = """\
FROM scratch
COPY busybox /bin/busybox
COPY whoami /whoami
RUN ["/bin/busybox", "chmod", "4755", "/whoami"]
USER 1000
CMD ["/whoami"]
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("setuid")
    (folder / "whoami.c").write_text(PROGRAM)
    command = ["cc", "-static", "-o", str(folder / "whoami"), str(folder / "whoami.c")]
    subprocess.run(command, check=True)
    images.build(IMAGE, RECIPE, {"whoami": (folder / "whoami").read_bytes()})
    return IMAGE


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("allowed", [True, False], ids=["allowed", "not allowed"])
async def test_a_setuid_program_is_root_where_it_may(
    nats_server: NatsServer,
    tmp_path: Path,
    image: str,
    mode: str,
    allowed: bool,  # noqa: FBT001
) -> None:
    async with world_on(nats_server.url, tmp_path, mode) as world:
        world.start(ABACO_ALLOW_NEW_PRIVILEGES=str(allowed).lower())
        host = {"host_id": world.yard.host_id}
        for number, no_new_privileges in enumerate((True, False)):
            actor_id = f"setuid{number}_0"
            definition = b.registered(actor_id, image=image, no_new_privileges=no_new_privileges)
            sequence = await world.append(definition)
            await world.append(b.requested(0, actor_id, actor_sequence=sequence, **host))
            message = await world.append(b.received(0, actor_id))
            placed = {"message_sequence": message, "actor_sequence": sequence}
            await world.append(b.assigned(0, actor_id, **placed, **host))
        ends = {e.actor_id: e for e in await world.seen(ev.ExecutionFinished, 2)}
        said = {actor_id: await world.output(end) for actor_id, end in ends.items()}
    assert said["setuid0_0"] == b"1000 1000\n"
    assert said["setuid1_0"] == (b"1000 0\n" if allowed else b"1000 1000\n")
