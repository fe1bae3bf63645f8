"""Fixtures for all tests, and the rule that an unexpected warning in the log fails the test that caused it."""

from __future__ import annotations

import gc
import logging
import os
import re
from typing import TYPE_CHECKING

import pytest
from fakes import FakeClock, RecordingRoom
from hubs import ROADS
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytest_plugins = ("browsers",)  # the fixtures of those tests that drive the console

settings.register_profile("ci", derandomize=True, deadline=None, database=None)
settings.register_profile("explore", deadline=None, max_examples=2000)  # HYPOTHESIS_PROFILE=explore, when hunting
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

WATCHED_LOGGERS = ("caucus", "tornado", "asyncio")

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each of a thousand starts compiles what it starts


# Files that take longest by themselves: begun first, so that no worker is left alone with one.
LONG = (
    *("browser_record", "browser_fates", "journal", "originals", "agent", "attacks", "hub_process", "meet", "http"),
    *("browser_one", "roads", "browser", "cost", "browser_replay", "browser_holds", "demo", "browser_layout", "pyz"),
    *("record", "browser_needs", "browser_ruling", "browser_notify", "service", "notify", "doctor", "browser_hands"),
    *("browser_phone", "console", "browser_flow", "browser_awake", "defects", "browser_chair", "replay", "mcp_client"),
    *("browser_access", "bridge", "awake", "watch"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first."""
    place = {f"test_{name}": at for at, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONG)))


def pytest_collection_finish() -> None:
    """Let the collector of garbage pass over nine thousand tests: it looks at them again and again, 0.2 s each time."""
    gc.freeze()


class _Warnings(logging.Handler):
    """Keeps each record of level WARNING or worse."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.expected: list[str] = []  # regular expressions
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def faults(self) -> list[str]:
        """Word what came without being expected, and what was expected and did not come."""
        lines = [f"{record.levelname} {record.name}: {record.getMessage()}" for record in self.records]
        strange = [line for line in lines if not any(re.search(pattern, line) for pattern in self.expected)]
        absent = [pattern for pattern in self.expected if not any(re.search(pattern, line) for line in lines)]
        return [*strange, *(f"expected in the log, and absent: {pattern}" for pattern in absent)]


@pytest.fixture(autouse=True)
def _log_guard() -> Iterator[_Warnings]:
    handler = _Warnings()
    for name in WATCHED_LOGGERS:
        logging.getLogger(name).addHandler(handler)
    yield handler
    for name in WATCHED_LOGGERS:
        logging.getLogger(name).removeHandler(handler)
    if faults := handler.faults():
        pytest.fail("\n".join(faults), pytrace=False)


@pytest.fixture
def expect_warning(_log_guard: _Warnings) -> Callable[[str], None]:
    """Announce a log line, as a regular expression over "LEVEL logger: text"; it must come, and others must not."""
    return _log_guard.expected.append


@pytest.fixture(scope="module", params=ROADS)
def road(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Give the flags of a hub; who asks for them is run twice, with an express lane and with Tornado alone.

    What speaks to a hub by its hot routes, or has to do with connections, asks for it, in test_http, test_fuzz,
    test_defects and test_hub_process. The others run once, with a lane, as users do: the clients (watch, bridge, agent,
    the originals), the console and /mcp word their requests in one way, and those ways are in test_roads.
    """
    return ROADS[str(request.param)]


@pytest.fixture
def clock() -> FakeClock:
    """Give the clock of `room`; it stands still."""
    return FakeClock()


@pytest.fixture
def room(clock: FakeClock) -> RecordingRoom:
    """Give an empty room whose `events` are kept."""
    return RecordingRoom(clock)
