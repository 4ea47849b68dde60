"""What a data folder remembers."""

from pathlib import Path

import pytest

from abaco_local import identity
from abaco_local.config import Config
from abaco_local.folder import Folder
from abaco_proto.errors import Refused


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path)
    made.create()
    return made


def test_it_survives_a_restart(folder: Folder) -> None:
    chosen = identity.at_rest(folder, Config(), identity.create(folder))
    identity.save(folder, chosen)
    known = identity.load(folder)
    assert known is not None
    assert known == chosen
    assert identity.at_rest(folder, Config(), known) == chosen


def test_its_file_is_private(folder: Folder) -> None:
    identity.save(folder, identity.create(folder))
    assert folder.identity.stat().st_mode & 0o777 == 0o600


def test_the_two_servers_have_two_ports(folder: Folder) -> None:
    old = identity.create(folder)
    chosen = identity.at_rest(folder, Config(), old, free=lambda _: True)
    assert chosen.nats_port != chosen.postgres_port
    assert chosen.host_id == old.host_id
    assert chosen.nats_password == old.nats_password


def test_every_service_has_a_port_for_its_metrics(folder: Folder) -> None:
    old = identity.create(folder)
    chosen = identity.at_rest(folder, Config(), old, free=lambda _: True)
    ports = {chosen.nats_port, chosen.postgres_port, 8000, *chosen.metrics_ports.values()}
    assert set(chosen.metrics_ports) == {"projector", "scheduler", "worker"}
    assert len(ports) == 6
    taken = chosen.metrics_ports["worker"]
    new = identity.at_rest(folder, Config(), chosen, free=lambda port: port != taken)
    assert new.metrics_ports["worker"] != taken
    assert new.metrics_ports["scheduler"] == chosen.metrics_ports["scheduler"]


def test_a_taken_port_is_chosen_again(folder: Folder) -> None:
    old = identity.at_rest(folder, Config(), identity.create(folder), free=lambda _: True)
    new = identity.at_rest(folder, Config(), old, free=lambda port: port != old.nats_port)
    assert new.nats_port != old.nats_port
    assert new.postgres_port == old.postgres_port


def test_a_running_stack_keeps_its_ports_unless_others_are_asked_for(folder: Folder) -> None:
    old = identity.create(folder)
    assert identity.at_work(Config(), old) == old
    assert identity.at_work(Config(nats_port=4222), old).nats_port == 4222


def test_a_long_path_gets_its_socket_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = tmp_path / "t"
    short.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(short))
    folder = Folder(tmp_path / ("x" * 120))
    folder.create()
    old = identity.create(folder)
    assert Path(old.socket).parent.parent == short
    assert Path(old.socket).parent.stat().st_mode & 0o077 == 0
    assert identity.at_rest(folder, Config(), old).socket == old.socket


def test_a_moved_folder_gets_a_socket_of_its_own(folder: Folder, tmp_path: Path) -> None:
    old = identity.create(folder)
    moved = Folder(tmp_path / "moved")
    moved.create()
    assert identity.at_rest(moved, Config(), old).socket != old.socket


def test_a_damaged_file_is_not_replaced_silently(folder: Folder) -> None:
    folder.identity.write_text("{")
    with pytest.raises(Refused, match="damaged"):
        identity.load(folder)
