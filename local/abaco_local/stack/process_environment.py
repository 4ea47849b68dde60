"""The environment of the processes: what they inherit, and what the stack sets."""

from collections.abc import Mapping
from pathlib import Path

from abaco_local.free_ports import LOOPBACK
from abaco_local.local_settings import LocalSettings
from abaco_local.stack_identity import StackIdentity
from abaco_proto.settings import FROM_FILE

# A list of what is passed on: the environment is written to the data folder, and the caller's may
# contain unrelated secrets.
PASSED_NAMES = ("HOME", "LANG", "PATH", "TMPDIR", "TZ", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
PASSED_PREFIXES = ("LC_", "PYTHON", "SSL_CERT_")
OF_COMMANDS = ("ABACO_TOKEN",)
"""Secrets of the person who types a command; no service needs them."""

SERVICE_PREFIXES = ("ABACO_", "COVERAGE_", "DOCKER_", "OTEL_")


def server_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the NATS server and of Postgres."""
    return {
        name: value
        for name, value in sorted(environ.items())
        if name.upper() in PASSED_NAMES or name.startswith(PASSED_PREFIXES)
    }


def service_environment(
    environ: Mapping[str, str], config: LocalSettings, root: Path, identity: StackIdentity
) -> dict[str, str]:
    """Return the environment of the services: the caller's settings, with this stack's
    addresses.
    """
    fixed = {
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
        if name.startswith(SERVICE_PREFIXES)
        and name.removesuffix(FROM_FILE) not in (*fixed, *OF_COMMANDS)
    }
    chosen = {"ABACO_HOST_ID": identity.host_id, "ABACO_WORKER_DIR": str(root / "worker")}
    chosen = {name: value for name, value in chosen.items() if f"{name}{FROM_FILE}" not in passed}
    return server_environment(environ) | chosen | passed | fixed
