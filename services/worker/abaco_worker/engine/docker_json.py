"""Docker's JSON: the arguments of its calls, and its answers as values of the engine port."""

import os
import re
import signal
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from abaco_worker.domain.engine_values import (
    CONFINEMENTS,
    LAUNCHER_PATH,
    BridgeEndpoint,
    Container,
    ContainerSpec,
    Image,
    LabelledContainer,
    NetworkFiles,
    PullProgress,
    ResourceUsage,
)

NEVER = "0001-01-01T00:00:00Z"

LINE_OVERHEAD = 80
"""An upper bound of the bytes in which json-file stores a line of one byte."""

BRIDGE = "bridge"
"""The name of the network that ``docker run`` joins."""

BRIDGE_DEVICE = "docker0"
"""The bridge of that network, if the engine made it. Another bridge may span several hosts."""

DEFAULT_MTU = "1500"

CORES = os.cpu_count() or 1
"""An engine refuses a limit above the number of CPUs."""

FRAME = struct.Struct(">BxxxL")
"""The frame of each piece of output: its stream, and its length (Docker's "attach")."""

MIN_LOG_BYTES = 64 * 1024 * 1024

LAUNCHER_PROCESSES = 2
"""The processes of a sandbox beside the program: the pausing process, and the launcher."""

MAX_SIGNAL_DIGITS = 2
REAL_TIME = re.compile(r"RT(MIN(?=\+)|MAX(?=-))([+-][0-9]{1,2})", re.ASCII)
REAL_TIME_ENDS = {"MIN": signal.SIGRTMIN, "MAX": signal.SIGRTMAX}

Layers = dict[str, tuple[bool, int, int]]
"""Per layer of a pull: whether it is complete, bytes so far, bytes in total."""


def create_arguments(spec: ContainerSpec) -> dict[str, Any]:
    """Return docker-py's arguments to create a container.

    Process 1 of a sandbox runs as root, like the launcher beside it. The image's health check is
    disabled, because it would run the image's code before there is a message.
    """
    arguments = {
        "image": spec.image,
        "name": spec.name,
        "environment": dict(spec.environment),
        "labels": dict(spec.labels),
        "detach": True,
        "host_config": host_config(spec),
    }
    if spec.network_files is not None:
        arguments["network_disabled"] = True
    if spec.launcher is None:
        return arguments
    launcher = {"entrypoint": [LAUNCHER_PATH, "pause"], "user": "0:0", "stop_signal": "SIGTERM"}
    return arguments | launcher | {"healthcheck": {"Test": ["NONE"]}}


def host_config(spec: ContainerSpec) -> dict[str, Any]:
    """Return the ``HostConfig`` of a container to be created."""
    config: dict[str, Any] = {
        "Memory": spec.memory_bytes,
        "MemorySwap": spec.memory_bytes,  # memory and swap together: no swap
        "NanoCpus": int(min(spec.cpus, CORES) * 1_000_000_000),
        "PidsLimit": spec.processes,
        "Ulimits": _ulimits(spec),
        "NetworkMode": spec.network_mode,
        "SecurityOpt": ["no-new-privileges"] if spec.no_new_privileges else [],
        "Privileged": spec.privileged,
        "LogConfig": _log_config(spec),
        "Binds": [],
    }
    if spec.launcher is not None:
        config["Binds"] += [f"{spec.launcher.program}:{LAUNCHER_PATH}:ro"]
        config["PidsLimit"] += LAUNCHER_PROCESSES
        config["Init"] = False
    if spec.network_files is not None:
        files = spec.network_files
        config["Binds"] += [f"{files.hosts}:/etc/hosts", f"{files.resolv_conf}:/etc/resolv.conf"]
    return config


def _ulimits(spec: ContainerSpec) -> list[dict[str, Any]]:
    """Return the limit on open files.

    Without one, a container inherits the engine's limit, often a thousand million. A program that
    closes every possible descriptor then takes minutes.
    """
    files = spec.open_files
    return [{"Name": "nofile", "Soft": files, "Hard": files}] if files else []


def _log_config(spec: ContainerSpec) -> dict[str, Any]:
    """Return where the engine stores output.

    It keeps two files, so that endless output does not fill the disk, and replaces the older one.
    So each must hold what has to stay readable, and must be so large that no program fills both
    before the worker begins to read.
    """
    if spec.launcher is not None:
        return {"Type": "none"}
    log_bytes = max(LINE_OVERHEAD * spec.kept_output_bytes, MIN_LOG_BYTES)
    return {"Type": "json-file", "Config": {"max-size": str(log_bytes), "max-file": "2"}}


def container(found: Mapping[str, Any]) -> Container:
    """Return a container from its inspection."""
    state = found["State"]
    return Container(
        container_id=found["Id"],
        image_id=found["Image"],
        labels=found["Config"]["Labels"] or {},
        status=state["Status"],
        exit_code=state["ExitCode"],
        oom_killed=state["OOMKilled"],
        error=state["Error"],
        started_at=state["StartedAt"].replace(NEVER, ""),
        finished_at=state["FinishedAt"].replace(NEVER, ""),
        pid=state.get("Pid") or 0,
    )


def endpoint(found: Mapping[str, Any], network: Mapping[str, Any]) -> BridgeEndpoint | None:
    """Return how a container is attached, from its inspection and that of the network ``bridge``.

    None if the worker must not attach others: the administrator has restricted the addresses, or
    the network has IPv6.
    """
    settings = found["NetworkSettings"]["Networks"].get(BRIDGE) or {}
    options = network.get("Options") or {}
    ranges = (network.get("IPAM") or {}).get("Config") or []
    ours = options.get("com.docker.network.bridge.name") == BRIDGE_DEVICE
    plain = len(ranges) == 1 and not ranges[0].get("IPRange") and not network.get("EnableIPv6")
    connected = settings.get("IPAddress") and settings.get("Gateway")
    files = found.get("HostsPath") and found.get("ResolvConfPath")
    if not (ours and plain and connected and files):
        return None
    return BridgeEndpoint(
        bridge=BRIDGE_DEVICE,
        address=f"{settings['IPAddress']}/{settings['IPPrefixLen']}",
        gateway=settings["Gateway"],
        mtu=int(options.get("com.docker.network.driver.mtu") or DEFAULT_MTU),
        files=NetworkFiles(hosts=found["HostsPath"], resolv_conf=found["ResolvConfPath"]),
    )


def confinements(found: Mapping[str, Any]) -> frozenset[str]:
    """Return what confines containers, from ``docker info``: ``name=seccomp,profile=default``."""
    used = set()
    for option in found.get("SecurityOptions") or ():
        fields = dict(field.partition("=")[::2] for field in option.split(","))
        if fields.get("profile") != "unconfined":
            used.add(fields.get("name", ""))
    return frozenset(used & {*CONFINEMENTS})


def labelled(listed: Mapping[str, Any]) -> LabelledContainer:
    """Return a container from a list; one that is being removed has no name."""
    names = listed.get("Names") or [""]
    return LabelledContainer(
        container_id=listed["Id"], name=names[0].lstrip("/"), labels=listed["Labels"] or {}
    )


def usage(stats: Mapping[str, Any]) -> ResourceUsage:
    """Return the usage from statistics; cgroup v1 and v2 spell ``Read`` and ``read``."""
    blocks = (stats.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []
    on_disk = sum(b["value"] for b in blocks if b["op"].lower() in ("read", "write"))
    networks = (stats.get("networks") or {}).values()
    on_network = sum(n.get("rx_bytes", 0) + n.get("tx_bytes", 0) for n in networks)
    cpu = (stats.get("cpu_stats") or {}).get("cpu_usage") or {}
    return ResourceUsage(cpu_ns=cpu.get("total_usage", 0), io_bytes=on_disk + on_network)


def advance(layers: Layers, line: Mapping[str, Any]) -> PullProgress:
    """Add one line of a pull to ``layers``, and return the progress."""
    status, layer = line.get("status", ""), line.get("id", "")
    if status in ("Pull complete", "Already exists"):
        _, _, total = layers.get(layer, (False, 0, 0))
        layers[layer] = (True, total, total)
    elif status == "Downloading":
        detail = line.get("progressDetail") or {}
        layers[layer] = (False, detail.get("current", 0), detail.get("total", 0))
    elif status == "Pulling fs layer":
        layers[layer] = (False, 0, 0)
    return PullProgress(
        done_layers=sum(done for done, _, _ in layers.values()),
        layers=len(layers),
        done_bytes=sum(now for _, now, _ in layers.values()),
        total_bytes=sum(total for _, _, total in layers.values()),
    )


def image(found: Mapping[str, Any]) -> Image:
    """Return an image from its inspection."""
    digests = found.get("RepoDigests") or [found["Id"]]
    config = found.get("Config") or {}
    variables = (variable.partition("=") for variable in config.get("Env") or ())
    return Image(
        image_id=found["Id"],
        digest=digests[0].rpartition("@")[2],
        command=(*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())),
        user=config.get("User") or "",
        directory=config.get("WorkingDir") or "",
        environment={name: value for name, _, value in variables},
        stop_signal=stop_signal(config.get("StopSignal") or ""),
    )


def stop_signal(text: str) -> int:
    """Return the number of a STOPSIGNAL; SIGTERM, as with Docker, if it names no signal."""
    name = text.upper().removeprefix("SIG")
    if name.isascii() and name.isdecimal():
        number = int(name) if len(name) <= MAX_SIGNAL_DIGITS else 0
    elif offset := REAL_TIME.fullmatch(name):
        number = REAL_TIME_ENDS[offset[1]] + int(offset[2])
    else:
        number = signal.Signals.__members__.get(f"SIG{name}", 0)
    return number if 1 <= number <= signal.SIGRTMAX else signal.SIGTERM


def demultiplexed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield framed output, however it is cut, without its frames, up to the last complete one."""
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        output, at = bytearray(), 0
        while len(buffer) >= at + FRAME.size:
            _, length = FRAME.unpack_from(buffer, at)
            end = at + FRAME.size + length
            if len(buffer) < end:
                break
            output += buffer[at + FRAME.size : end]
            at = end
        del buffer[:at]
        if output:
            yield bytes(output)
