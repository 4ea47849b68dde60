import os
import subprocess
import sys

import msgspec
import pytest

from abaco_proto import settings
from abaco_proto.errors import Malformed
from abaco_worker.worker_settings import WorkerSettings, capacity, host_id, open_files


def test_every_setting_has_a_name_and_a_description() -> None:
    schema = msgspec.json.schema(WorkerSettings)["$defs"]["WorkerSettings"]["properties"]
    assert all(field["description"].endswith(".") for field in schema.values())
    assert {f"ABACO_{name.upper()}" for name in schema} <= settings.NAMES


def test_settings_are_read_from_the_environment() -> None:
    environ = {"ABACO_HOST_CAPACITY": "3", "ABACO_PULL_POLICY": "never", "ABACO_INIT_COUNT": "1"}
    config = settings.read(WorkerSettings, environ)
    assert (config.host_capacity, config.pull_policy) == (3, "never")
    assert config.isolation == "sandbox"
    chosen = settings.read(WorkerSettings, {"ABACO_ISOLATION": "container"})
    assert chosen.isolation == "container"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ABACO_HOST_ID", "a.b"),
        ("ABACO_HOST_CAPACITY", "-1"),
        ("ABACO_PULL_POLICY", "sometimes"),
        ("ABACO_ISOLATION", "vm"),
        ("ABACO_CONTAINER_CPUS", "0"),
        ("ABACO_HEARTBEAT_SECONDS", "often"),
    ],
)
def test_a_bad_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(Malformed, match=f"^{name}: "):
        settings.read(WorkerSettings, {name: value})


def test_a_bad_setting_ends_the_process_with_one_line() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "abaco_worker"],
        env={**os.environ, "ABACO_MAX_LOG_BYTES": "lots"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("abaco-worker: ABACO_MAX_LOG_BYTES: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("hostname", "expected"),
    [
        ("web1", "web1"),
        ("web1.example.org", "web1-example-org"),
        ("_x_", "x"),
        ("ü", "host"),
        ("", "host"),
        ("a" * 62 + ".b", "a" * 62),
    ],
)
def test_the_host_id_is_a_token_of_the_hostname(hostname: str, expected: str) -> None:
    assert host_id(WorkerSettings(), hostname) == expected
    assert settings.read(WorkerSettings, {"ABACO_HOST_ID": expected}).host_id == expected


def test_a_chosen_host_id_wins() -> None:
    assert host_id(WorkerSettings(host_id="h1"), "web1") == "h1"


def test_open_files_are_limited_where_the_kernel_allows_more() -> None:
    assert open_files(WorkerSettings(), 1_073_741_816) == 1_048_576
    assert open_files(WorkerSettings(), 1_048_576) == 0
    assert open_files(WorkerSettings(container_open_files=1024), 1_048_576) == 1024
    assert open_files(WorkerSettings(container_open_files=0), 1_048_576) == 0


def test_the_capacity_follows_the_cores() -> None:
    assert capacity(WorkerSettings(), 1) == 16
    assert capacity(WorkerSettings(), 8) == 64
    assert capacity(WorkerSettings(host_capacity=3), 8) == 3
