"""Docker's JSON as values of the engine port."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from abaco_worker.domain.engine_values import (
    BridgeEndpoint,
    ContainerSpec,
    NetworkFiles,
    ResourceUsage,
)
from abaco_worker.engine import docker_json

SPEC = ContainerSpec(
    name="n",
    image="i",
    environment={},
    labels={},
    memory_bytes=100,
    cpus=0.5,
    processes=7,
    network_mode="none",
    kept_output_bytes=1_000_000,
)


def test_the_limits_in_the_words_of_the_engine() -> None:
    config = docker_json.host_config(SPEC)
    assert config["Memory"] == config["MemorySwap"] == 100
    assert config["NanoCpus"] == 500_000_000
    assert config["PidsLimit"] == 7
    assert config["SecurityOpt"] == ["no-new-privileges"]
    allowing = docker_json.host_config(replace(SPEC, no_new_privileges=False))
    assert allowing["SecurityOpt"] == []
    assert config["LogConfig"]["Config"] == {"max-size": "80000000", "max-file": "2"}


def test_the_limit_on_open_files_is_said_where_there_is_one() -> None:
    assert docker_json.host_config(SPEC)["Ulimits"] == []
    limits = docker_json.host_config(replace(SPEC, open_files=1024))["Ulimits"]
    assert limits == [{"Name": "nofile", "Soft": 1024, "Hard": 1024}]


def test_what_confines_containers() -> None:
    debian = ["name=apparmor", "name=seccomp,profile=builtin", "name=cgroupns"]
    assert docker_json.confinements({"SecurityOptions": debian}) == {"apparmor", "seccomp"}
    assert (
        docker_json.confinements({"SecurityOptions": ["name=seccomp,profile=unconfined"]}) == set()
    )
    assert docker_json.confinements({"SecurityOptions": None}) == set()


def test_a_container_that_is_to_be_connected_by_others() -> None:
    files = NetworkFiles(hosts="/f/hosts", resolv_conf="/f/resolv.conf")
    spec = replace(SPEC, network_mode="bridge", network_files=files)
    told = docker_json.create_arguments(spec)
    assert told["network_disabled"]
    binds = ["/f/hosts:/etc/hosts", "/f/resolv.conf:/etc/resolv.conf"]
    assert told["host_config"]["Binds"] == binds
    assert "network_disabled" not in docker_json.create_arguments(SPEC)


def bridge(**changes: Any) -> dict[str, Any]:
    """Return the inspection of the network ``bridge``."""
    options = {"com.docker.network.bridge.name": "docker0", "com.docker.network.driver.mtu": "1400"}
    ranges = [{"Subnet": "172.17.0.0/16", "Gateway": "172.17.0.1"}]
    return {"Options": options, "IPAM": {"Config": ranges}, "EnableIPv6": False} | changes


def connected(**changes: Any) -> dict[str, Any]:
    """Return the inspection of a container that is attached to it."""
    settings = {"IPAddress": "172.17.0.2", "IPPrefixLen": 16, "Gateway": "172.17.0.1"} | changes
    files = {"HostsPath": "/h", "ResolvConfPath": "/r"}
    return {"NetworkSettings": {"Networks": {"bridge": settings}}} | files


def test_an_endpoint_on_the_engines_own_bridge() -> None:
    assert docker_json.endpoint(connected(), bridge()) == BridgeEndpoint(
        bridge="docker0",
        address="172.17.0.2/16",
        gateway="172.17.0.1",
        mtu=1400,
        files=NetworkFiles(hosts="/h", resolv_conf="/r"),
    )
    plain = docker_json.endpoint(
        connected(), bridge(Options={"com.docker.network.bridge.name": "docker0"})
    )
    assert plain is not None
    assert plain.mtu == 1500


ELSEWHERE = {
    "a bridge of an administrator": {"Options": {"com.docker.network.bridge.name": "br0"}},
    "no options": {"Options": None},
    "a range": {"IPAM": {"Config": [{"Subnet": "10.0.0.0/8", "IPRange": "10.1.0.0/16"}]}},
    "two networks": {"IPAM": {"Config": [{"Subnet": "10.0.0.0/8"}, {"Subnet": "fd00::/64"}]}},
    "no network": {"IPAM": None},
    "IPv6": {"EnableIPv6": True},
}


@pytest.mark.parametrize("changes", ELSEWHERE.values(), ids=ELSEWHERE.keys())
def test_an_endpoint_where_nobody_may_join_in(changes: dict[str, Any]) -> None:
    assert docker_json.endpoint(connected(), bridge(**changes)) is None


def test_an_endpoint_whose_files_are_not_told() -> None:
    assert docker_json.endpoint(connected() | {"HostsPath": ""}, bridge()) is None


@pytest.mark.parametrize("missing", ["IPAddress", "Gateway"])
def test_a_container_that_is_not_connected_yet(missing: str) -> None:
    assert docker_json.endpoint(connected(**{missing: ""}), bridge()) is None


@pytest.mark.parametrize(("read", "write"), [("Read", "Write"), ("read", "write")])
def test_usage_of_either_cgroup_version(read: str, write: str) -> None:
    blocks = [
        {"op": read, "value": 1},
        {"op": write, "value": 2},
        {"op": "Total", "value": 3},
    ]
    stats = {
        "cpu_stats": {"cpu_usage": {"total_usage": 5}},
        "blkio_stats": {"io_service_bytes_recursive": blocks},
        "networks": {"eth0": {"rx_bytes": 10, "tx_bytes": 20}},
    }
    assert docker_json.usage(stats) == ResourceUsage(cpu_ns=5, io_bytes=33)


@pytest.mark.parametrize("stats", [{}, {"blkio_stats": {"io_service_bytes_recursive": None}}])
def test_no_usage_is_none(stats: dict[str, Any]) -> None:
    assert docker_json.usage(stats) == ResourceUsage()


def test_a_pull_advances() -> None:
    layers: docker_json.Layers = {}
    for line in (
        {"status": "Pulling from library/x", "id": "latest"},
        {"status": "Pulling fs layer", "id": "a"},
        {"status": "Already exists", "id": "b"},
        {"status": "Downloading", "id": "a", "progressDetail": {"current": 5, "total": 10}},
    ):
        progress = docker_json.advance(layers, line)
    assert (progress.done_layers, progress.layers) == (1, 2)
    assert (progress.done_bytes, progress.total_bytes) == (5, 10)
    progress = docker_json.advance(layers, {"status": "Pull complete", "id": "a"})
    assert (progress.done_layers, progress.done_bytes) == (2, 10)


def test_an_image_without_a_registry_has_its_id_for_a_digest() -> None:
    assert docker_json.image({"Id": "sha256:1", "RepoDigests": []}).digest == "sha256:1"
    there = {"Id": "sha256:1", "RepoDigests": ["a/b@sha256:2"]}
    assert docker_json.image(there).digest == "sha256:2"


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("", 15),
        ("SIGINT", 2),
        ("int", 2),
        ("QUIT", 3),
        ("37", 37),
        ("SIGRTMIN+3", 37),
        ("RTMAX-14", 50),
        ("SIGRTMIN", 34),
        ("0", 15),
        ("65", 15),
        ("RTMIN-3", 15),
        ("SIGNOTHING", 15),
        ("9" * 5000, 15),
    ],
)
def test_a_stop_signal_is_read_as_docker_does(said: str, number: int) -> None:
    assert docker_json.image({"Id": "i", "Config": {"StopSignal": said}}).stop_signal == number


def test_times_that_never_were_are_empty() -> None:
    state = {
        "Status": "created",
        "ExitCode": 0,
        "OOMKilled": False,
        "Error": "",
        "StartedAt": "0001-01-01T00:00:00Z",
        "FinishedAt": "0001-01-01T00:00:00Z",
    }
    found = {"Id": "c", "Image": "i", "State": state, "Config": {"Labels": None}}
    container = docker_json.container(found)
    assert (container.started_at, container.finished_at) == ("", "")
    assert container.never_started


@given(st.lists(st.binary(max_size=20)), st.integers(1, 30))
def test_output_loses_its_frames_however_they_are_cut(written: list[bytes], size: int) -> None:
    framed = b"".join(docker_json.FRAME.pack(1 + n % 2, len(w)) + w for n, w in enumerate(written))
    cut = [framed[at : at + size] for at in range(0, len(framed), size)]
    assert b"".join(docker_json.demultiplexed(cut)) == b"".join(written)
    unfinished = [*cut, docker_json.FRAME.pack(1, 5) + b"half"]
    assert b"".join(docker_json.demultiplexed(unfinished)) == b"".join(written)
