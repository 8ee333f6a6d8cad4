"""What all endpoints of a daemon share."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from runner.orchestrators.settings import OrchestratorSettings
from runner.ports import Clock, Observer


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings, time, chance, and who wants to hear of changes."""

    settings: OrchestratorSettings
    clock: Clock
    #: Monotonic seconds, anyio's; what the event loop has at hand is quicker to ask.
    time: Callable[[], float]
    observer: Observer
    #: Gives numbers in [0, 1).
    chance: Callable[[], float]
    #: Called when more calls may begin than before, with the monotonic time.
    stir: Callable[[float], None]
    #: Called when what operators see has changed: a breaker's state, the endpoints there are, their health.
    changed: Callable[[], None]
