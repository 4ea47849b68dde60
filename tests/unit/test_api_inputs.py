"""The inputs of two runs, compared."""

from typing import Any

import pytest

import builders as b
from abaco_api.explain.execution_inputs import Inputs, same_inputs


def inputs(**definition: Any) -> Inputs:
    return Inputs(
        message=b.received(),
        definition=b.definition(**definition) if definition else None,
        state="",
        image="sha256:0",
        actor_sequence=1,
        state_sequence=0,
    )


@pytest.mark.parametrize("right", ["privileged", "no_new_privileges"])
def test_rights_are_named_only_where_they_differ(right: str) -> None:
    usual = {"privileged": False, "no_new_privileges": True}
    same = ["image", "message", "environment", "state"]
    assert list(same_inputs(inputs(**usual), inputs())) == same
    differing = same_inputs(inputs(**usual), inputs(**{**usual, right: not usual[right]}))
    assert differing == {**dict.fromkeys(same, True), right: False}
