"""The steps of a container's life, for several configurations, in turns.

    python bench/starts.py [--rounds N]

One container at a time, by the raw API.
"""

import argparse
import os
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import docker

from abaco_bench.baselines.raw_docker import CALL_SECONDS, LABEL, RawDocker, bounded
from abaco_bench.results import machine, report
from abaco_bench.results.figures import Figure, Ratio, median, spread
from abaco_bench.results.picture import Panel, draw
from abaco_bench.results.progress import say
from images import QUICK, build_scripts

STEPS = ("create", "start", "end", "remove")
CPU = "CPU"
UNCONNECTED = "not connected"
PLAIN = "bridge"
LIMITED = {
    "mem_limit": "256m",
    "memswap_limit": "256m",
    "nano_cpus": 1_000_000_000,
    "pids_limit": 256,
    "security_opt": ["no-new-privileges"],
}
LIMITS = {
    "create": "the engine's own files",
    "start": "the programs that the engine starts one after another, itself among them",
    "end": "the program in it, and taking down network, mounts and cgroups",
    "remove": "the file system",
    CPU: "all that the machine did meanwhile, counted in steps of 10 ms",
}


def variants(network: str) -> dict[str, dict[str, Any]]:
    """What ``HostConfig`` is made of; ``network`` is one that was made for this.

    Not connected is a network namespace of its own with which the engine does nothing.
    """
    return {
        PLAIN: {},
        "no network": {"network_mode": "none"},
        "host network": {"network_mode": "host"},
        "own network": {"network_mode": network},
        UNCONNECTED: {},
        "limits": LIMITED,
        "no log": {"log_config": {"Type": "none", "Config": {}}},
        "init": {"init": True},
        "seccomp off": {"security_opt": ["seccomp=unconfined"]},
    }


def life(api: Any, run: str, how: Mapping[str, Any], *, connected: bool) -> dict[str, float]:
    """One container from its creation to its removal; ms of each step, and of CPU time in all."""
    busy = machine.busy_seconds()
    config = api.create_host_config(**how)
    times = [time.perf_counter()]

    def lap() -> None:
        times.append(time.perf_counter())

    with bounded():
        container = api.create_container(
            QUICK, labels={LABEL: run}, host_config=config, network_disabled=not connected
        )["Id"]
        lap()
        api.start(container)
        lap()
        api.wait(container, timeout=CALL_SECONDS)
        lap()
        api.remove_container(container, v=True)
        lap()
    steps = dict(zip(STEPS, ((b - a) * 1e3 for a, b in pairwise(times)), strict=True))
    return steps | {CPU: (machine.busy_seconds() - busy) * 1e3}


def measure(api: Any, run: str, rounds: int) -> dict[str, list[float]]:
    """Samples by variant and step."""
    samples: dict[str, list[float]] = defaultdict(list)
    for number in range(-1, rounds):
        for name, how in variants(run).items():
            for step, value in life(api, run, how, connected=name != UNCONNECTED).items():
                if number >= 0:
                    samples[f"{name}: {step}"].append(value)
        say(f"round {number + 1}/{rounds}")
    return samples


def made_report(samples: dict[str, list[float]], rounds: int) -> report.Report:
    """Each start beside the plain one."""
    plain = median(samples[f"{PLAIN}: start"])
    return report.Report(
        name="starts",
        machine=machine.description(),
        options={"rounds": rounds},
        ratios=[
            Ratio(name=f"start, {name} to {PLAIN}", value=median(found) / plain, unit="x")
            for name, _, step in (key.partition(": ") for key in samples)
            if step == "start" and name != PLAIN
            for found in [samples[f"{name}: {step}"]]
        ],
        figures=[
            Figure(
                name=name, unit="ms", spread=spread(found), limit=LIMITS[name.partition(": ")[2]]
            )
            for name, found in sorted(samples.items(), key=lambda item: _step(item[0]))
        ],
        samples=samples,
    )


def _step(name: str) -> int:
    return (*STEPS, CPU).index(name.partition(": ")[2])


def main() -> None:
    """Measure, print the table, keep the JSON and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=8, help="samples of each (8)")
    rounds = parser.parse_args().rounds
    run = f"abaco-bench-{os.getpid()}"
    build_scripts()
    raw, api = RawDocker(run), docker.APIClient(version="auto", timeout=CALL_SECONDS)
    try:
        api.create_network(run, driver="bridge", labels={LABEL: run})
        samples = measure(api, run, rounds)
    finally:
        raw.clean()
        for network in api.networks(names=[run]):
            api.remove_network(network["Id"])
        raw.close()
        api.close()
    found = made_report(samples, rounds)
    sys.stdout.write(report.table(found))
    panel = Panel(
        title="a step of a container's life",
        figures=found.figures,
        ours=frozenset(name for name in samples if name.endswith(": start")),
        logarithmic=True,
    )
    for path in report.keep(found, draw("Where a container's start goes", [panel])):
        say(f"kept {path}")


if __name__ == "__main__":
    main()
