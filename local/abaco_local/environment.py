"""What of the caller's environment the processes get, and what the stack adds to it."""

from collections.abc import Mapping
from pathlib import Path

from abaco_local.config import Config
from abaco_local.identity import Identity
from abaco_local.ports import LOOPBACK
from abaco_proto.settings import FROM_FILE

# A list of what passes, not of what does not: the result is written to the data folder, and the
# caller's environment may hold secrets that are no business of ours.
NAMES = ("HOME", "LANG", "PATH", "TMPDIR", "TZ", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
PREFIXES = ("LC_", "PYTHON", "SSL_CERT_")
OF_SERVICES = ("ABACO_", "COVERAGE_", "DOCKER_", "OTEL_")


def of_servers(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the NATS server and of Postgres."""
    return {
        name: value
        for name, value in sorted(environ.items())
        if name.upper() in NAMES or name.startswith(PREFIXES)
    }


def of_services(
    environ: Mapping[str, str], config: Config, root: Path, identity: Identity
) -> dict[str, str]:
    """Return the environment of our services: the caller's settings, at our addresses."""
    ours = {
        "ABACO_API_HOST": config.api_host,
        "ABACO_API_PORT": str(config.api_port),
        "ABACO_DATA_DIR": str(root),
        "ABACO_METRICS_HOST": LOOPBACK,
        "ABACO_METRICS_PORT": "0",
        "ABACO_NATS_PORT": str(identity.nats_port),
        "ABACO_NATS_URL": identity.nats_url,
        "ABACO_POSTGRES_DSN": identity.postgres_dsn,
        "ABACO_POSTGRES_PORT": str(identity.postgres_port),
        "PYTHONUNBUFFERED": "1",
    }
    passed = {
        name: value
        for name, value in environ.items()
        if name.startswith(OF_SERVICES) and name.removesuffix(FROM_FILE) not in ours
    }
    chosen = {"ABACO_HOST_ID": identity.host_id, "ABACO_WORKER_DIR": str(root / "worker")}
    chosen = {name: value for name, value in chosen.items() if f"{name}{FROM_FILE}" not in passed}
    return of_servers(environ) | chosen | passed | ours
