"""How tests of real servers are spread over processes, by pytest-xdist's ``--dist loadscope``.

A group is what runs in one process, one test after another. Tests that share something expensive
(what a fixture of their file makes, the stack that is there for all) are one group a file; of the
others each is a group of its own. Groups that take long begin first, so that none is left alone at
the end.
"""

import pytest
from xdist.scheduler import LoadScopeScheduling

ALONE = frozenset(
    {
        "fault/test_clock_stepped.py",
        "fault/test_down_and_up.py",
        "fault/test_engine_restarted.py",
        "fault/test_worker_killed_often.py",
        "integration/test_worker.py",
        "integration/test_worker_sandboxes.py",
        "integration/test_rebuild.py",
        "integration/test_verify.py",
    }
)
"""Files of which every test makes its own servers."""

LONGEST = (
    "fault/test_mixer.py",
    "e2e/test_compose.py",
    "fault/test_clock_stepped.py",
    "e2e/test_compose_cluster.py",
    "integration/test_api_past.py",
    "integration/test_api_as_of.py",
    "fault/test_engine_restarted.py",
    "fault/test_worker_killed_often.py",
    "fault/test_nats_cluster.py",
    "integration/test_sandbox_docker.py",
    "fault/test_disk_full.py",
    "fault/test_host_lost_for_good.py",
    "fault/test_subscriptions.py",
    "e2e/test_control.py",
    "fault/test_service_killed.py",
    "fault/test_container_killed.py",
    "fault/test_down_and_up.py",
    "fault/test_poison_events.py",
    "e2e/test_concurrency.py",
    "e2e/test_history.py",
    "integration/test_worker_sandboxes.py",
    "integration/test_worker.py",
    "integration/test_rebuild.py",
    "integration/test_worker_network.py",
    "integration/test_launcher_docker.py",
    "integration/test_api_nasty_values.py",
    "integration/test_api_fuzz.py",
    "e2e/test_old_data_folder.py",
    "integration/test_sandbox_attacks.py",
    "integration/test_projector_store.py",
)
"""By the time they take, measured."""

REST = len(LONGEST)


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # it comes without types
    """The groups of this module."""

    def _split_scope(self, nodeid: str) -> str:
        """Tell the group of a test; the place for it that xdist names."""
        file = nodeid.partition("::")[0].removeprefix("tests/")
        return nodeid if file in ALONE else file


def longest_first(items: list[pytest.Item]) -> None:
    """Put the tests in order."""
    items.sort(key=lambda item: place("/".join(item.path.parts[-2:])))


def place(file: str) -> int:
    """How early a file begins."""
    return LONGEST.index(file) if file in LONGEST else REST
