"""Become one process of the stack: ``python -m abaco_local.launch <commands.json> <name>``.

The supervisor starts every process through this module. So command lines and the supervisor's
own configuration hold no secret, a value may hold any character (supervisord's configuration
cuts at `` #`` and expands ``%``), and a restart takes new settings. It imports little on purpose:
it runs before every start of every process.
"""

import json
import os
import sys
from pathlib import Path
from typing import NoReturn


def main(commands: str, name: str) -> NoReturn:
    """Replace this process by the one that ``commands`` describes under ``name``."""
    command = json.loads(Path(commands).read_bytes())[name]
    # By SUPERVISOR_SERVER_URL an orphan is recognised as one of this data folder: see `orphans`.
    marks = {key: value for key, value in os.environ.items() if key.startswith("SUPERVISOR_")}
    os.execvpe(command["argv"][0], command["argv"], command["env"] | marks)  # noqa: S606


if __name__ == "__main__":
    main(*sys.argv[1:])
