"""The answer of ``abaco status``."""

from pathlib import Path

import msgspec

from abaco_local.data_folder import DataFolder
from abaco_local.local_settings import LocalSettings
from abaco_local.stack.process_commands import START_ORDER, Command
from abaco_local.stack.stack_status import mask_password, status, table
from abaco_local.stack.supervisor_client import SupervisedProcess
from abaco_local.stack_identity import StackIdentity

IDENTITY = StackIdentity("h-1a2b3c4d", "nats-pw", "pg-pw", 20001, 20002, "/s")


def test_down_is_every_service_stopped(tmp_path: Path) -> None:
    answer = msgspec.to_builtins(status(LocalSettings(), DataFolder(tmp_path), IDENTITY, []))
    assert answer.keys() == {
        *("services", "api_url", "data_dir"),
        *("nats_url", "nats_reader_url", "postgres_dsn"),
    }
    assert answer["services"] == [
        {
            "name": name,
            "pid": None,
            "state": "STOPPED",
            "metrics_url": "http://127.0.0.1:8000/metrics" if name == "api" else None,
        }
        for name in START_ORDER
    ]
    assert answer["data_dir"] == str(tmp_path)


def test_a_reader_has_an_address_of_its_own(tmp_path: Path) -> None:
    answer = status(LocalSettings(), DataFolder(tmp_path), IDENTITY, [])
    assert answer.nats_reader_url == IDENTITY.nats_url_of("reader")
    assert answer.nats_reader_url != answer.nats_url
    assert IDENTITY.nats_password not in answer.nats_reader_url


def test_before_the_first_up_there_are_no_addresses(tmp_path: Path) -> None:
    answer = status(LocalSettings(), DataFolder(tmp_path), None, [])
    assert (answer.nats_url, answer.nats_reader_url, answer.postgres_dsn) == (None, None, None)


def test_the_url_of_a_running_api_is_the_one_it_was_started_with(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    folder.create()
    api = Command(["x"], {"ABACO_API_HOST": "127.0.0.1", "ABACO_API_PORT": "9999"})
    folder.commands.write_bytes(msgspec.json.encode({"api": api}))
    running = [SupervisedProcess("api", 7, "RUNNING")]
    assert status(LocalSettings(), folder, IDENTITY, running).api_url == "http://127.0.0.1:9999"
    assert status(LocalSettings(), folder, IDENTITY, []).api_url == "http://127.0.0.1:8000"


def test_every_service_has_the_address_of_its_metrics(tmp_path: Path) -> None:
    ports = {"scheduler": 20003, "worker": 20004, "projector": 20005}
    identity = msgspec.structs.replace(IDENTITY, metrics_ports=ports)
    answer = status(LocalSettings(api_port=8001), DataFolder(tmp_path), identity, [])
    found = {each.name: each.metrics_url for each in answer.services if each.metrics_url}
    assert found == {
        "api": "http://127.0.0.1:8001/metrics",
        **{name: f"http://127.0.0.1:{port}/metrics" for name, port in ports.items()},
    }


def test_people_see_no_password(tmp_path: Path) -> None:
    text = table(
        status(
            LocalSettings(),
            DataFolder(tmp_path),
            IDENTITY,
            [SupervisedProcess("api", 7, "RUNNING")],
        )
    )
    assert "-pw" not in text
    assert "nats://abaco:***@127.0.0.1:20001" in text
    assert "api         RUNNING     7" in text


def test_an_address_without_a_password_is_shown_as_it_is() -> None:
    assert mask_password("nats://127.0.0.1:4222") == "nats://127.0.0.1:4222"
    assert mask_password(None) == "-"
