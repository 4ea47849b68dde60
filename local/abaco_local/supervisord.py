"""The supervisor that keeps the processes alive: its configuration, its start and its end.

Everything restarts when it dies, however often: an exit is a fault of the moment here, never a
decision. The supervisor waits a second longer after each start that failed within a second.

Paths are relative to the data folder, where the supervisor is started: its configuration file
expands ``%`` (in some places twice) and cuts at `` #``, and a folder may have any name.
"""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from abaco_local import healer, orphans
from abaco_local.folder import Folder
from abaco_local.processes import START_ORDER, stop_of
from abaco_local.wait import until
from abaco_proto.errors import Malformed, Unavailable

GLOBAL = """\
[unix_http_server]
file={socket}
chmod=0700

[supervisord]
logfile=logs/supervisord.log
logfile_maxbytes=10MB
logfile_backups=1
pidfile=run/supervisord.pid
nocleanup=true
{user}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""

# Started one after another by `up`, not all at once by the supervisor.
PROGRAM = """\
[program:{name}]
command={command}
autostart=false
autorestart=true
startsecs=1
startretries=1000000000
stopsignal={signal}
stopwaitsecs={seconds}
killasgroup=true
redirect_stderr=true
stdout_logfile=logs/{name}.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=3
{more}"""

# Hears what the NATS server says, and starts it anew when that is what it needs.
LISTENER = """\
[eventlistener:{name}]
command={command}
events=PROCESS_LOG,TICK_5
buffer_size=1000
autorestart=true
startretries=1000000000
stderr_logfile=logs/{name}.log
stderr_logfile_maxbytes=1MB
stderr_logfile_backups=1
"""

START_SECONDS = 15


def escaped(text: str) -> str:
    """Return a value as the configuration file has to spell it.

    Raises:
        Malformed: for what the file cannot hold in any spelling.
    """
    if any(character in text for character in "\"';#\n"):
        raise Malformed(f"{text}: the supervisor takes no path with quotes, ';' or '#'")
    return text.replace("%", "%%")


def configuration(socket: str, *, root: bool) -> str:
    """Return the text of the configuration file; it holds no secret (see ``launch``)."""
    # Without its last line a supervisor that runs as root complains about it at each start.
    head = GLOBAL.format(socket=escaped(socket), user="user=root\n" if root else "")
    return "\n".join([head, *map(_program, START_ORDER), _listener(socket)])


def _program(name: str) -> str:
    launch = ["-P", "-m", "abaco_local.launch", "run/commands.json", name]
    return PROGRAM.format(
        name=name,
        command=shlex.join([escaped(sys.executable), *launch]),
        signal=stop_of(name).signal,
        seconds=stop_of(name).seconds,
        more="stdout_events_enabled=true\n" if name == healer.PATIENT else "",
    )


def _listener(socket: str) -> str:
    words = ["-P", "-W", "ignore", "-m", "abaco_local.healer", escaped(socket), "nats"]
    return LISTENER.format(name=healer.NAME, command=shlex.join([escaped(sys.executable), *words]))


def start(folder: Folder, environ: dict[str, str]) -> None:
    """Start the supervisor in the background.

    Raises:
        Unavailable: if it ends at once; its last words.
    """
    argv = [sys.executable, "-P", "-W", "ignore", "-m", "supervisor.supervisord"]
    done = subprocess.run(
        [*argv, "-c", str(folder.supervisord_conf)],
        cwd=folder.root,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise Unavailable(f"the supervisor does not start: {lines[-1]}")


def pid(folder: Folder) -> int | None:
    """Return the supervisor's process id, if the process that has it now is ours."""
    try:
        number = int(folder.supervisord_pid.read_text())
        words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return number if os.fsencode(folder.supervisord_conf) in words else None


def end(folder: Folder, seconds: float) -> None:
    """End a supervisor that does not answer, politely first; its processes may outlive it."""
    for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 10)):
        found = pid(folder)
        if found is None:
            return
        orphans.send(found, number)
        if until(lambda: pid(folder) is None, patience):
            return
