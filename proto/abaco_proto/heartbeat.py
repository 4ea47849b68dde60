"""The message by which a host reports that it is alive."""

from typing import Annotated

import msgspec
from msgspec import Meta

from abaco_proto.names import HOST_PATTERN


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """Sent by a host every few seconds. Not stored."""

    host_id: Annotated[str, Meta(pattern=HOST_PATTERN)]
    capacity: Annotated[int, Meta(ge=0)]
