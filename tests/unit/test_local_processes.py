"""The commands and environments of the supervised processes."""

import json
import os
from pathlib import Path

import msgspec
import pytest

from abaco_local import launch
from abaco_local.data_folder import DataFolder
from abaco_local.local_settings import LocalSettings
from abaco_local.servers import nats_server
from abaco_local.stack import process_commands
from abaco_local.stack.process_environment import server_environment
from abaco_local.stack_identity import StackIdentity
from abaco_worker.launcher import build

IDENTITY = StackIdentity("h-1a2b3c4d", "nats-pw", "pg-pw", 20001, 20002, "/s")


def commands(tmp_path: Path, **environ: str) -> dict[str, process_commands.Command]:
    return process_commands.commands(
        DataFolder(tmp_path), LocalSettings(api_port=8123), IDENTITY, environ
    )


def test_the_services_get_our_addresses_and_the_callers_settings(tmp_path: Path) -> None:
    odd = "100% of \"this\" & 'that' # ;"
    env = commands(tmp_path, ABACO_INIT_COUNT="3", DOCKER_HOST="unix:///x", ABACO_TENANT=odd)
    api = env["api"].env
    assert api["ABACO_NATS_URL"] == IDENTITY.nats_url_of("api")
    assert api["ABACO_POSTGRES_DSN"] == "postgresql://abaco:pg-pw@127.0.0.1:20002/abaco"
    assert api["ABACO_HOST_ID"] == "h-1a2b3c4d"
    assert api["ABACO_API_PORT"] == "8123"
    assert (api["ABACO_INIT_COUNT"], api["DOCKER_HOST"]) == ("3", "unix:///x")
    assert api["ABACO_TENANT"] == odd


def test_other_variables_are_not_passed_on(tmp_path: Path) -> None:
    api = commands(tmp_path, CLOUD_SECRET="x", PGHOST="elsewhere")["api"].env
    assert not {"CLOUD_SECRET", "PGHOST"} & api.keys()


def test_a_launcher_that_is_built_later_restarts_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Path] = []
    monkeypatch.setattr(build, "find", lambda: built[-1] if built else None)
    before = commands(tmp_path)
    assert "ABACO_LAUNCHER" not in before["worker"].env
    built.append(Path("/build/launcher-1"))
    after = commands(tmp_path)
    assert after["worker"].env["ABACO_LAUNCHER"] == "/build/launcher-1"
    assert process_commands.changed_processes(before, after) == ["worker"]
    for own in ({"ABACO_LAUNCHER": "off"}, {"ABACO_LAUNCHER_FILE": "/its/file"}):
        assert "/build/launcher-1" not in commands(tmp_path, **own)["worker"].env.values()


def test_the_servers_get_no_settings(tmp_path: Path) -> None:
    env = commands(tmp_path, ABACO_INIT_COUNT="3", PATH="/bin")
    assert (
        env["nats"].env
        == env["postgres"].env
        == {"PATH": "/bin"}
        == server_environment({"PATH": "/bin"})
    )


def test_no_command_line_holds_a_secret(tmp_path: Path) -> None:
    words = [word for command in commands(tmp_path).values() for word in command.argv]
    assert not any("-pw" in word for word in words)


def test_only_what_has_other_settings_is_changed(tmp_path: Path) -> None:
    old = commands(tmp_path)
    assert process_commands.changed_processes(old, commands(tmp_path)) == []
    assert process_commands.changed_processes(old, commands(tmp_path, ABACO_INIT_COUNT="3")) == [
        *process_commands.STOP_ORDER[:4]
    ]
    assert process_commands.changed_processes({}, old) == [*process_commands.STOP_ORDER]


def test_a_file_of_its_own_is_a_reason_to_restart(tmp_path: Path) -> None:
    old = commands(tmp_path)
    assert process_commands.changed_processes(old, commands(tmp_path), {"nats"}) == ["nats"]


def test_a_setting_may_come_from_a_file_except_where_it_is_ours(tmp_path: Path) -> None:
    files = {"ABACO_NATS_URL_FILE": "/x", "ABACO_HOST_ID_FILE": "/y", "ABACO_TENANT_FILE": "/z"}
    api = commands(tmp_path, **files)["api"].env
    assert "ABACO_NATS_URL_FILE" not in api
    assert "ABACO_HOST_ID" not in api
    assert (api["ABACO_HOST_ID_FILE"], api["ABACO_TENANT_FILE"]) == ("/y", "/z")


def test_every_service_is_a_user_of_its_own(tmp_path: Path) -> None:
    env = commands(tmp_path)
    urls = {name: env[name].env["ABACO_NATS_URL"] for name in process_commands.SERVICES}
    assert urls == {name: IDENTITY.nats_url_of(name) for name in process_commands.SERVICES}
    assert len(set(urls.values())) == len(process_commands.SERVICES)


def test_every_service_has_its_own_metrics_port(tmp_path: Path) -> None:
    identity = msgspec.structs.replace(IDENTITY, metrics_ports={"worker": 20004})
    found = process_commands.commands(
        DataFolder(tmp_path), LocalSettings(), identity, {"ABACO_METRICS_PORT": "1", "OTEL_X": "y"}
    )
    ports = {name: found[name].env["ABACO_METRICS_PORT"] for name in process_commands.SERVICES}
    assert ports == {"worker": "20004", "scheduler": "0", "projector": "0", "api": "0"}
    assert found["api"].env["OTEL_X"] == "y"
    assert "OTEL_X" not in found["nats"].env


def test_another_terminal_restarts_nothing(tmp_path: Path) -> None:
    assert (
        process_commands.changed_processes(
            commands(tmp_path, PATH="/a"), commands(tmp_path, PATH="/b")
        )
        == []
    )


def test_every_process_is_in_both_orders() -> None:
    assert sorted(process_commands.START_ORDER) == sorted(process_commands.STOP_ORDER)
    assert process_commands.STOP_ORDER[-2:] == process_commands.SERVERS


def test_the_nats_configuration_survives_odd_folders(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / 'a "b" {c}')
    text = nats_server.configuration(folder, IDENTITY)
    assert json.dumps(str(folder.nats)) in text
    assert "sync_interval: always" in text
    assert '"nats-pw"' in text


def test_launch_becomes_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[object] = []
    monkeypatch.setattr(os, "environ", {"SUPERVISOR_SERVER_URL": "unix:///s", "ABACO_OLD": "1"})
    monkeypatch.setattr(os, "execvpe", lambda *call: became.extend(call))
    path = tmp_path / "commands.json"
    path.write_text(json.dumps({"api": {"argv": ["python", "-m", "x"], "env": {"A": "%s"}}}))
    launch.main(str(path), "api")
    assert became == [
        "python",
        ["python", "-m", "x"],
        {"A": "%s", "SUPERVISOR_SERVER_URL": "unix:///s"},
    ]


def test_the_token_of_who_types_a_command_is_of_no_service(tmp_path: Path) -> None:
    for name in ("ABACO_TOKEN", "ABACO_TOKEN_FILE"):
        for command in process_commands.SERVICES:
            assert name not in commands(tmp_path, **{name: "secret"})[command].env
