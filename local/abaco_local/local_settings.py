"""The settings of the embedded stack itself; each service has its own."""

from typing import Annotated

import msgspec

from abaco_proto.settings import Port


class LocalSettings(msgspec.Struct, frozen=True):
    """Read by each ``abaco`` command. A port of 0 is chosen once and stored in the data folder."""

    data_dir: Annotated[
        str,
        msgspec.Meta(
            description="The folder that holds all data, logs and secrets of the embedded stack.",
            min_length=1,
        ),
    ] = ".abaco"
    api_host: Annotated[
        str, msgspec.Meta(description="The address the api listens on.", min_length=1)
    ] = "127.0.0.1"
    api_port: Annotated[
        int, msgspec.Meta(description="The port the api listens on.", ge=1, le=65535)
    ] = 8000
    token: Annotated[
        str,
        msgspec.Meta(
            description="The API token that `abaco demo` and `abaco events` send; needed with"
            " ABACO_AUTH=on."
        ),
    ] = ""
    nats_port: Annotated[
        Port, msgspec.Meta(description="The embedded NATS server's port; 0 chooses a free one.")
    ] = 0
    postgres_port: Annotated[
        Port, msgspec.Meta(description="The embedded Postgres server's port; 0 chooses a free one.")
    ] = 0

    @property
    def api_url(self) -> str:
        """The address of the API for clients on this machine; a wildcard address becomes
        loopback.
        """
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.api_host, self.api_host)  # noqa: S104
        return (
            f"http://[{host}]:{self.api_port}" if ":" in host else f"http://{host}:{self.api_port}"
        )
