"""The stored identity of a data folder."""

from pathlib import Path

import pytest

from abaco_local import stack_identity
from abaco_local.data_folder import DataFolder
from abaco_local.local_settings import LocalSettings
from abaco_proto.errors import Refused


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    made = DataFolder(tmp_path)
    made.create()
    return made


def test_it_survives_a_restart(folder: DataFolder) -> None:
    chosen = stack_identity.for_start(folder, LocalSettings(), stack_identity.create(folder))
    stack_identity.save(folder, chosen)
    known = stack_identity.load(folder)
    assert known is not None
    assert known == chosen
    assert stack_identity.for_start(folder, LocalSettings(), known) == chosen


def test_its_file_is_private(folder: DataFolder) -> None:
    stack_identity.save(folder, stack_identity.create(folder))
    assert folder.identity.stat().st_mode & 0o777 == 0o600


def test_the_two_servers_have_two_ports(folder: DataFolder) -> None:
    old = stack_identity.create(folder)
    chosen = stack_identity.for_start(folder, LocalSettings(), old, free=lambda _: True)
    assert chosen.nats_port != chosen.postgres_port
    assert chosen.host_id == old.host_id
    assert chosen.nats_password == old.nats_password


def test_every_service_has_a_port_for_its_metrics(folder: DataFolder) -> None:
    old = stack_identity.create(folder)
    chosen = stack_identity.for_start(folder, LocalSettings(), old, free=lambda _: True)
    ports = {chosen.nats_port, chosen.postgres_port, 8000, *chosen.metrics_ports.values()}
    assert set(chosen.metrics_ports) == {"projector", "scheduler", "worker"}
    assert len(ports) == 6
    taken = chosen.metrics_ports["worker"]
    new = stack_identity.for_start(folder, LocalSettings(), chosen, free=lambda port: port != taken)
    assert new.metrics_ports["worker"] != taken
    assert new.metrics_ports["scheduler"] == chosen.metrics_ports["scheduler"]


def test_a_taken_port_is_chosen_again(folder: DataFolder) -> None:
    old = stack_identity.for_start(
        folder, LocalSettings(), stack_identity.create(folder), free=lambda _: True
    )
    new = stack_identity.for_start(
        folder, LocalSettings(), old, free=lambda port: port != old.nats_port
    )
    assert new.nats_port != old.nats_port
    assert new.postgres_port == old.postgres_port


def test_a_running_stack_keeps_its_ports_unless_others_are_asked_for(folder: DataFolder) -> None:
    old = stack_identity.create(folder)
    assert stack_identity.for_running_stack(LocalSettings(), old) == old
    assert stack_identity.for_running_stack(LocalSettings(nats_port=4222), old).nats_port == 4222


def test_a_long_path_gets_its_socket_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = tmp_path / "t"
    short.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(short))
    folder = DataFolder(tmp_path / ("x" * 120))
    folder.create()
    old = stack_identity.create(folder)
    assert Path(old.socket).parent.parent == short
    assert Path(old.socket).parent.stat().st_mode & 0o077 == 0
    assert stack_identity.for_start(folder, LocalSettings(), old).socket == old.socket


def test_a_moved_folder_gets_a_socket_of_its_own(folder: DataFolder, tmp_path: Path) -> None:
    old = stack_identity.create(folder)
    moved = DataFolder(tmp_path / "moved")
    moved.create()
    assert stack_identity.for_start(moved, LocalSettings(), old).socket != old.socket


def test_a_damaged_file_is_not_replaced_silently(folder: DataFolder) -> None:
    folder.identity.write_text("{")
    with pytest.raises(Refused, match="damaged"):
        stack_identity.load(folder)
