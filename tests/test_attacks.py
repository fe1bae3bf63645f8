"""The attacks of tests/attacks.py in their short form: the hub's memory stays bounded, and it goes on for all others.

How long others wait is measured by `tests/bench.py --attack`, not here: a test that is timed fails on a busy machine.
"""

from __future__ import annotations

import math

import pytest
from attacks import ATTACKS, attacked
from hubs import ROADS, HubProcess, eventually, running_hub
from websockets.exceptions import InvalidStatus

SCALE, SECONDS = 0.25, 0.8
GROWTH_MAX_MB = 150.0  # 64 MB may be in flight, twice for a moment
LONG_ONES = {"big-room": 0.1}  # thousands of registrations take their time
SLOW_ONES = dict.fromkeys(("hoarding-consoles", "deaf-consoles"), 2.0)  # to fill as much memory as there would be
# By the operator's socket, which on both roads is Tornado's from its handshake on; the others come by both.
BY_CONSOLE = {"deaf-consoles", "hoarding-consoles", "knocks", "fragments", "small-frames", "laborious-texts"}
BY_CONSOLE |= {"open-consoles"}


@pytest.mark.parametrize(("name", "road"), [
    (name, road) for name in ATTACKS for road in ROADS if road == "express" or name not in BY_CONSOLE
])
def test_an_attack_leaves_the_hub_within_its_bounds_and_alive(name: str, road: str) -> None:
    with running_hub(*ROADS[road]) as hub:
        felt = attacked(name, hub.port, hub.process.pid, LONG_ONES.get(name, SCALE), SLOW_ONES.get(name, SECONDS))
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
