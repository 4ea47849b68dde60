"""The message by which a host reports that it is alive."""

from typing import Annotated

import msgspec
from msgspec import Meta

from abaco_proto.ids import HOST_PATTERN


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """A host's sign of life. Not stored anywhere."""

    host_id: Annotated[str, Meta(pattern=HOST_PATTERN)]
    capacity: Annotated[int, Meta(ge=0)]
