"""Docker's JSON, in the words of the engine port: what it is told, and what it answers."""

import os
import re
import signal
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from abaco_worker.domain.containers import (
    CONFINEMENTS,
    PROGRAM,
    Container,
    ContainerSpec,
    Endpoint,
    Image,
    Labelled,
    NetworkFiles,
    PullProgress,
    Usage,
)

NEVER = "0001-01-01T00:00:00Z"

LINE_OVERHEAD = 80
"""json-file stores a line of one byte in not quite so many."""

BRIDGE = "bridge"
"""The name of the network that ``docker run`` joins."""

BRIDGE_DEVICE = "docker0"
"""Its bridge, when the engine made that itself; another one may reach further than this machine."""

USUAL_MTU = "1500"

CORES = os.cpu_count() or 1
"""An engine refuses to promise more than there is."""

FRAME = struct.Struct(">BxxxL")
"""Before each piece of output: which stream it is from, and its length (Docker's "attach")."""

SMALLEST_LOG_BYTES = 64 * 1024 * 1024

OWN_PROCESSES = 2
"""What is in a waiting container beside the program: what pauses, and the launcher."""

LONGEST_SIGNAL = 2
REAL_TIME = re.compile(r"RT(MIN(?=\+)|MAX(?=-))([+-][0-9]{1,2})", re.ASCII)
REAL_TIME_ENDS = {"MIN": signal.SIGRTMIN, "MAX": signal.SIGRTMAX}

Layers = dict[str, tuple[bool, int, int]]
"""Per layer of a pull: whether it is done, bytes so far, bytes in all."""


def creation(spec: ContainerSpec) -> dict[str, Any]:
    """What Docker is told of a container to be made, in docker-py's words.

    Its process 1 is root's, as is everything that is started beside it; an image's own health check
    would run the image's code before there is a message.
    """
    told = {
        "image": spec.image,
        "name": spec.name,
        "environment": dict(spec.environment),
        "labels": dict(spec.labels),
        "detach": True,
        "host_config": host_config(spec),
    }
    if spec.network_files is not None:
        told["network_disabled"] = True
    if spec.launcher is None:
        return told
    waiting = {"entrypoint": [PROGRAM, "pause"], "user": "0:0", "stop_signal": "SIGTERM"}
    return told | waiting | {"healthcheck": {"Test": ["NONE"]}}


def host_config(spec: ContainerSpec) -> dict[str, Any]:
    """``HostConfig`` of a container to be made."""
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
        config["Binds"] += [f"{spec.launcher.program}:{PROGRAM}:ro"]
        config["PidsLimit"] += OWN_PROCESSES
        config["Init"] = False
    if spec.network_files is not None:
        files = spec.network_files
        config["Binds"] += [f"{files.hosts}:/etc/hosts", f"{files.resolv_conf}:/etc/resolv.conf"]
    return config


def _ulimits(spec: ContainerSpec) -> list[dict[str, Any]]:
    """The limit on open files.

    Without one, an engine hands on its own, often a thousand million: then a program that closes
    all files it may have takes minutes.
    """
    files = spec.open_files
    return [{"Name": "nofile", "Soft": files, "Hard": files}] if files else []


def _log_config(spec: ContainerSpec) -> dict[str, Any]:
    """Where the engine keeps output.

    It keeps two files, so that endless output fills no disk, and forgets the older one for a
    third. So each must hold what has to stay readable, and be large enough that nobody fills two
    before we have begun to read.
    """
    if spec.launcher is not None:
        return {"Type": "none"}
    log_bytes = max(LINE_OVERHEAD * spec.kept_output_bytes, SMALLEST_LOG_BYTES)
    return {"Type": "json-file", "Config": {"max-size": str(log_bytes), "max-file": "2"}}


def container(found: Mapping[str, Any]) -> Container:
    """A container from its inspection."""
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


def endpoint(found: Mapping[str, Any], network: Mapping[str, Any]) -> Endpoint | None:
    """How a container is connected, from its inspection and that of the network ``bridge``.

    Nobody may join in where the administrator said which addresses may be given away, or where
    there is IPv6.
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
    return Endpoint(
        bridge=BRIDGE_DEVICE,
        address=f"{settings['IPAddress']}/{settings['IPPrefixLen']}",
        gateway=settings["Gateway"],
        mtu=int(options.get("com.docker.network.driver.mtu") or USUAL_MTU),
        files=NetworkFiles(hosts=found["HostsPath"], resolv_conf=found["ResolvConfPath"]),
    )


def confinements(found: Mapping[str, Any]) -> frozenset[str]:
    """What confines containers, from ``docker info``: ``name=seccomp,profile=default``."""
    used = set()
    for option in found.get("SecurityOptions") or ():
        fields = dict(field.partition("=")[::2] for field in option.split(","))
        if fields.get("profile") != "unconfined":
            used.add(fields.get("name", ""))
    return frozenset(used & {*CONFINEMENTS})


def labelled(listed: Mapping[str, Any]) -> Labelled:
    """A container from a list; one that is going has no name any more."""
    names = listed.get("Names") or [""]
    return Labelled(
        container_id=listed["Id"], name=names[0].lstrip("/"), labels=listed["Labels"] or {}
    )


def usage(stats: Mapping[str, Any]) -> Usage:
    """Usage, from statistics; the cgroup versions spell the operations ``Read`` and ``read``."""
    blocks = (stats.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []
    on_disk = sum(b["value"] for b in blocks if b["op"].lower() in ("read", "write"))
    networks = (stats.get("networks") or {}).values()
    on_network = sum(n.get("rx_bytes", 0) + n.get("tx_bytes", 0) for n in networks)
    cpu = (stats.get("cpu_stats") or {}).get("cpu_usage") or {}
    return Usage(cpu_ns=cpu.get("total_usage", 0), io_bytes=on_disk + on_network)


def advance(layers: Layers, line: Mapping[str, Any]) -> PullProgress:
    """Note one line of a pull, and say how far it has come."""
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
    """An image from its inspection."""
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


def stop_signal(said: str) -> int:
    """The number of a STOPSIGNAL; as with Docker, SIGTERM where it names none."""
    name = said.upper().removeprefix("SIG")
    if name.isascii() and name.isdecimal():
        number = int(name) if len(name) <= LONGEST_SIGNAL else 0
    elif place := REAL_TIME.fullmatch(name):
        number = REAL_TIME_ENDS[place[1]] + int(place[2])
    else:
        number = signal.Signals.__members__.get(f"SIG{name}", 0)
    return number if 1 <= number <= signal.SIGRTMAX else signal.SIGTERM


def demultiplexed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Framed output, however it is cut, without its frames; an unfinished last one is left out."""
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        output, at = bytearray(), 0
        while len(waiting) >= at + FRAME.size:
            _, length = FRAME.unpack_from(waiting, at)
            end = at + FRAME.size + length
            if len(waiting) < end:
                break
            output += waiting[at + FRAME.size : end]
            at = end
        del waiting[:at]
        if output:
            yield bytes(output)
