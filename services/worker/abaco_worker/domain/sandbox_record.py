"""What is stored about a sandbox: what it is, and the assignment it is used for."""

import msgspec

from abaco_proto.events import StartKind
from abaco_worker.domain.containers import Image
from abaco_worker.domain.sandbox_spec import Blueprint


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What a sandbox was taken for. ``mark`` tells the assignment from every other.

    ``state_sequence`` is where the state that the run is given stands in the log.
    """

    mark: str
    start_kind: StartKind
    taken_at: str
    state_sequence: int = 0


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What a sandbox is: its container, the image in it, and what it was made from.

    ``launcher`` is the name of its program: another version speaks another language.
    """

    container_id: str
    launcher: str
    image: Image
    blueprint: Blueprint
