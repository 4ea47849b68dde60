"""The paths that a container writes to, and their size on disk."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from abaco_worker.domain.engine_errors import EngineFault
from abaco_worker.engine import docker_disk_usage
from abaco_worker.engine.docker_disk_usage import DiskUsageWalker, folders, visible, volumes

KIBIBYTE = 1024

INSPECTED: dict[str, Any] = {
    "GraphDriver": {"Name": "overlay2", "Data": {"UpperDir": "/docker/overlay2/c/diff"}},
    "HostsPath": "/docker/containers/c/hosts",
    "HostnamePath": "/docker/containers/c/hostname",
    "ResolvConfPath": "",
    "Mounts": [
        {"Type": "volume", "Name": "v", "Source": "/docker/volumes/v/_data", "RW": True},
        {"Type": "volume", "Name": "ro", "Source": "/docker/volumes/ro/_data", "RW": False},
        {"Type": "bind", "Source": "/worker/c/run", "RW": True},
        {"Type": "bind", "Source": "/worker/launcher", "RW": False},
        {"Type": "tmpfs", "Source": "", "RW": True},
    ],
}


def test_all_that_a_container_can_write_to() -> None:
    assert folders(INSPECTED) == (
        "/docker/overlay2/c/diff",
        "/docker/volumes/v/_data",
        "/worker/c/run",
        "/docker/containers/c/hosts",
        "/docker/containers/c/hostname",
    )
    assert volumes(INSPECTED) == {"v"}


@pytest.mark.parametrize("driver", [None, {}, {"Data": None}, {"Data": {}}])
def test_a_driver_without_a_folder_cannot_be_walked_over(driver: Any) -> None:
    paths = folders({"GraphDriver": driver})
    assert not paths
    assert not visible(paths)


def test_a_folder_that_is_not_there_cannot_be_walked_over(tmp_path: Path) -> None:
    assert visible([str(tmp_path)])
    assert not visible([str(tmp_path / "nope")])


async def test_blocks_that_are_there_are_counted_once_and_holes_and_links_are_not(
    tmp_path: Path,
) -> None:
    layer, volume, outside = (tmp_path / name for name in ("layer", "volume", "outside"))
    for folder in (layer, volume, outside):
        folder.mkdir()
    (outside / "large").write_bytes(bytes(4 * 1024 * KIBIBYTE))
    empty = await DiskUsageWalker().bytes_below([str(layer), str(volume)])
    assert empty < 64 * KIBIBYTE
    (layer / "hole").touch()
    os.truncate(layer / "hole", 20 * 2**30)
    (layer / "link").symlink_to(outside)
    (layer / "file").symlink_to(outside / "large")
    assert await DiskUsageWalker().bytes_below([str(layer), str(volume)]) < 64 * KIBIBYTE
    (layer / "data").write_bytes(bytes(1024 * KIBIBYTE))
    os.link(layer / "data", layer / "again")
    (volume / "-k").write_bytes(bytes(1024 * KIBIBYTE))
    found = await DiskUsageWalker().bytes_below([str(layer), str(volume), str(tmp_path / "gone")])
    assert 2048 * KIBIBYTE <= found < 2112 * KIBIBYTE


async def test_a_walk_that_takes_too_long_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_disk_usage, "WALK_SECONDS", 0.0)
    with pytest.raises(EngineFault, match="was not measured"):
        await DiskUsageWalker().bytes_below([str(tmp_path)])


async def test_files_that_go_meanwhile_are_no_error(tmp_path: Path) -> None:
    async def churn() -> None:
        while True:
            for name in range(50):
                (tmp_path / f"{name}").write_bytes(b"x")
            await asyncio.sleep(0)
            for name in range(50):
                (tmp_path / f"{name}").unlink()

    churning = asyncio.create_task(churn())
    for _ in range(5):
        assert await DiskUsageWalker().bytes_below([str(tmp_path)]) < 1024 * KIBIBYTE
    churning.cancel()
