"""What is stored in a sandbox's directory: what the sandbox is, and its assignment.

The names of the fields in these files do not change: a worker reads what an older one has written.
"""

import msgspec

from abaco_proto.events import StartKind
from abaco_worker.domain.engine_values import Image
from abaco_worker.domain.sandbox_spec import SandboxSpec


class SandboxRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a sandbox is: its container, its image, and the spec it was made from.

    ``launcher`` is the file name of the launcher's program. Each version has its own name, and
    only a launcher of the same version understands this worker. ``stays`` is whether the container
    gets one message after another, each in a new sandbox; else it is used once. ``connected`` is
    whether each of these messages has a network namespace of its own, which the worker attaches;
    else they share the container's, one after another.
    """

    container_id: str
    launcher: str
    image: Image
    spec: SandboxSpec = msgspec.field(name="blueprint")
    stays: bool = False
    connected: bool = False


class SandboxAssignment(msgspec.Struct, frozen=True, kw_only=True):
    """The assignment that a sandbox is used for; see :func:`assignment_key`.

    ``taken_at`` is when the worker took up the assignment; ``state_sequence`` is the sequence of
    the state that the run is given.
    """

    key: str = msgspec.field(name="mark")
    start_kind: StartKind
    taken_at: str
    state_sequence: int = 0
