"""The daemon's clock while somebody sets the machine's."""

from __future__ import annotations

import pytest

from runner.daemon import SystemClock

SECOND = 1_000_000_000
START = 1_767_225_600 * SECOND


class Machine:
    """A machine whose time passes only as it is told."""

    def __init__(self) -> None:
        self.wall = START
        self.uptime = 5 * SECOND
        self.clock = SystemClock(lambda: self.wall, lambda: self.uptime)

    def after(self, nanoseconds: int) -> int:
        """Microseconds since the start, as the daemon sees it."""
        self.wall += nanoseconds
        self.uptime += nanoseconds
        return self.clock.now() - START // 1_000


def test_time_passes_as_on_the_machine() -> None:
    machine = Machine()
    assert machine.after(0) == 0
    assert machine.after(SECOND // 2) == 500_000
    assert machine.after(3600 * SECOND) == 3600_500_000


@pytest.mark.parametrize("hours", [-1, 1, -1000])
def test_a_clock_that_is_set_changes_no_wait_by_more_than_a_hundredth(hours: int) -> None:
    machine = Machine()
    machine.after(SECOND)
    machine.wall += hours * 3600 * SECOND
    assert machine.after(0) == 1_000_000
    assert machine.after(SECOND // 2) == pytest.approx(1_500_000, abs=5_000)


def test_time_never_goes_back_and_is_right_again_in_the_end() -> None:
    machine = Machine()
    machine.wall -= 36 * SECOND
    seen = [machine.after(SECOND) for _ in range(3_700)]
    assert seen == sorted(seen)
    assert seen[-1] == (3_700 - 36) * 1_000_000
