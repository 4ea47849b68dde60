"""The supervisor, supervisord: its configuration, start and end.

Every process that exits is restarted, however often: an exit is always a fault here. After a start
that failed within a second, the supervisor waits a second longer each time.

Paths are relative to the data folder, in which the supervisor runs: its configuration expands
``%`` (in some places twice) and cuts at `` #``, and the data folder may have any name.
"""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from abaco_local import healer
from abaco_local.data_folder import DataFolder
from abaco_local.polling import poll_until
from abaco_local.stack import orphan_processes
from abaco_local.stack.process_commands import START_ORDER, stop_method
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

# `abaco up` starts the processes one after another; the supervisor would start all at once.
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

# Restarts the NATS server after a failed write; see `healer`.
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


def escape(text: str) -> str:
    """Return a value as the configuration file spells it.

    Raises:
        Malformed: the file cannot contain the value.
    """
    if any(character in text for character in "\"';#\n"):
        raise Malformed(f"{text}: the supervisor takes no path with quotes, ';' or '#'")
    return text.replace("%", "%%")


def configuration(socket: str, *, root: bool) -> str:
    """Return the text of the configuration file, which contains no secret (see ``launch``)."""
    # Without `user`, a supervisor that runs as root logs a warning at each start.
    head = GLOBAL.format(socket=escape(socket), user="user=root\n" if root else "")
    return "\n".join([head, *map(_program, START_ORDER), _listener(socket)])


def _program(name: str) -> str:
    launch = ["-P", "-m", "abaco_local.launch", "run/commands.json", name]
    return PROGRAM.format(
        name=name,
        command=shlex.join([escape(sys.executable), *launch]),
        signal=stop_method(name).signal,
        seconds=stop_method(name).seconds,
        more="stdout_events_enabled=true\n" if name == healer.SERVER else "",
    )


def _listener(socket: str) -> str:
    arguments = ["-P", "-W", "ignore", "-m", "abaco_local.healer", escape(socket), "nats"]
    return LISTENER.format(
        name=healer.NAME, command=shlex.join([escape(sys.executable), *arguments])
    )


def start(folder: DataFolder, environ: dict[str, str]) -> None:
    """Start the supervisor in the background.

    Raises:
        Unavailable: it exits at once; the last line of its output.
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


def pid(folder: DataFolder) -> int | None:
    """Return the supervisor's process id, if that process is our supervisor."""
    try:
        number = int(folder.supervisord_pid.read_text())
        arguments = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return number if os.fsencode(folder.supervisord_conf) in arguments else None


def end(folder: DataFolder, seconds: float) -> None:
    """Stop a supervisor that does not answer, then kill it; its processes may outlive it."""
    for number, timeout in ((signal.SIGTERM, seconds), (signal.SIGKILL, 10)):
        found = pid(folder)
        if found is None:
            return
        orphan_processes.send(found, number)
        if poll_until(lambda: pid(folder) is None, timeout):
            return
