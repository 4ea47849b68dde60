"""Becomes one process of the stack: ``python -m abaco_local.launch <commands.json> <name>``.

The supervisor starts every process through this module. So command lines and the supervisor's
configuration contain no secret, a value may contain any character (supervisord's configuration
cuts at `` #`` and expands ``%``), and a restart uses new settings. It runs before every start of
every process, so it imports little. Its name is in the configuration of running supervisors: a
stack that is running while Abaco is updated needs it under this name.
"""

import json
import os
import sys
from pathlib import Path
from typing import NoReturn


def main(commands: str, name: str) -> NoReturn:
    """Replace this process with the one that ``commands`` describes under ``name``."""
    command = json.loads(Path(commands).read_bytes())[name]
    # SUPERVISOR_SERVER_URL identifies the orphans of this data folder; see `orphan_processes`.
    marks = {key: value for key, value in os.environ.items() if key.startswith("SUPERVISOR_")}
    os.execvpe(command["argv"][0], command["argv"], command["env"] | marks)  # noqa: S606


if __name__ == "__main__":
    main(*sys.argv[1:])
