"""Finding the processes of a killed supervisor."""

from pathlib import Path

from abaco_local.stack import orphan_processes


def process(proc: Path, pid: int, *variables: str) -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "environ").write_bytes(b"\0".join(map(str.encode, variables)) + b"\0")


def test_only_processes_of_this_supervisor_are_found(tmp_path: Path) -> None:
    process(tmp_path, 1, "A=b", "SUPERVISOR_SERVER_URL=unix:///d/s", "SUPERVISOR_PROCESS_NAME=api")
    process(tmp_path, 2, "SUPERVISOR_SERVER_URL=unix:///d/s2", "SUPERVISOR_PROCESS_NAME=api")
    process(tmp_path, 3, "ABACO_DATA_DIR=/d")
    process(tmp_path, 4, "SUPERVISOR_SERVER_URL=unix:///d/s")
    (tmp_path / "5").mkdir()
    assert orphan_processes.find("/d/s", tmp_path) == {1: "api", 4: ""}
