"""The attacks of tests/attacks.py in their short form: the hub's memory stays bounded, and it goes on for all others.

How long others wait is measured by `tests/bench.py --attack`, not here: a test that is timed fails on a busy machine.
"""

from __future__ import annotations

import math

import pytest
from attacks import ATTACKS, attacked
from hubs import HubProcess, eventually, running_hub
from websockets.exceptions import InvalidStatus

SCALE, SECONDS = 0.25, 2.0
GROWTH_MAX_MB = 150.0  # 64 MB may be in flight, twice for a moment
LONG_ONES = {"big-room": 0.1}  # thousands of registrations take their time


@pytest.mark.parametrize("road", [(), ("--plain-http",)], ids=["express", "plain"])
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_leaves_the_hub_within_its_bounds_and_alive(name: str, road: tuple[str, ...]) -> None:
    with running_hub(*road) as hub:
        felt = attacked(name, hub.port, hub.process.pid, LONG_ONES.get(name, SCALE), SECONDS)
        assert felt.requests > 0
        assert math.isnan(felt.peak_mb) or felt.peak_mb - felt.calm_mb < GROWTH_MAX_MB
        token = hub.register("survivor")
        hub.say(token, "human", "still here")
        eventually(lambda: opens(hub), "a place for a console")
        with hub.console() as console:
            assert console.snapshot["log"][-1]["content"] == "still here"


def opens(hub: HubProcess) -> bool:
    """Whether a console may open: those of the attack are being closed."""
    try:
        with hub.console():
            return True
    except InvalidStatus:
        return False
