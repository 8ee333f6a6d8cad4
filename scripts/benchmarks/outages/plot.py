"""Draws what was played: throughput over time, one small picture for each outage."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

from scripts.benchmarks.outages.figures import figures
from scripts.benchmarks.outages.play import Played
from scripts.benchmarks.outages.scenarios import HEALTHY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS: Final = 2
_HEALTHY_COLOUR: Final = "#009e73"
_SICK_COLOUR: Final = "#0072b2"
_FAILED_COLOUR: Final = "#d55e00"
_OUTAGE_COLOUR: Final = "#e8e8e8"
#: Throughput is shown over so many stretches of time.
_BINS: Final = 105


def require() -> None:
    """Ends the process with a message if there is nothing to draw with."""
    if importlib.util.find_spec("matplotlib") is None:
        sys.exit("--plot needs matplotlib: .venv/bin/pip install -c constraints.txt -e '.[bench]'")


def draw(played: Sequence[Played], directory: Path) -> None:
    """Write outages.png and outages.svg."""
    import matplotlib as mpl

    # Without a display. The same figures give the same file: no date, no random ids.
    mpl.use("Agg")
    mpl.rcParams.update(
        {
            "svg.hashsalt": "outages",
            "svg.fonttype": "none",
            "font.size": 8,
            "axes.titlesize": 9,
            "axes.titlelocation": "left",
        }
    )
    from matplotlib import pyplot as plt

    rows = -(-len(played) // _COLUMNS)
    figure, grid = plt.subplots(
        rows, _COLUMNS, figsize=(9, 1.9 * rows + 0.6), sharex=True, squeeze=False, layout="constrained"
    )
    for axes, each in zip(grid.flat, played, strict=False):
        _draw_one(axes, each)
    for axes in grid.flat[len(played) :]:
        axes.set_axis_off()
    for axes in grid[-1]:
        axes.set_xlabel("seconds since the outage began")
    for row in grid:
        row[0].set_ylabel("a second")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    directory.mkdir(parents=True, exist_ok=True)
    figure.savefig(directory / "outages.png", dpi=130)
    figure.savefig(directory / "outages.svg", metadata={"Date": None})
    plt.close(figure)


def _draw_one(axes: Axes, played: Played) -> None:
    [scenario], times = played.scenarios, played.times
    [found] = figures(played)
    width = times.offered_until / _BINS
    middles = [(n + 0.5) * width - times.begin for n in range(_BINS)]
    for come, go in scenario.stretches(times):
        axes.axvspan(come - times.begin, go - times.begin, color=_OUTAGE_COLOUR, linewidth=0)
    axes.plot(middles, _ended(played, HEALTHY, width), color=_HEALTHY_COLOUR, linewidth=1, label="healthy: jobs done")
    axes.plot(middles, _ended(played, scenario.name, width), color=_SICK_COLOUR, linewidth=1, label="sick: jobs done")
    failed = _failed(played, scenario.members, width)
    axes.fill_between(middles, failed, step="mid", color=_FAILED_COLOUR, linewidth=0, label="sick: calls that failed")
    axes.set_title(f"{scenario.what} · {found.wasted} calls failed ({found.waste:.1%})")
    axes.set_xlim(-times.begin, times.offered_until - times.begin)
    # Whoever catches up may go far beyond what is offered.
    axes.set_ylim(0, 3 * played.rate)
    axes.spines[["top", "right"]].set_visible(False)


def _ended(played: Played, load: str, width: float) -> list[float]:
    """Jobs that succeeded, a second."""
    counts = [0.0] * _BINS
    for end in played.ends:
        if end.load == load and end.succeeded and end.at < played.times.offered_until:
            counts[int(end.at / width)] += 1 / width
    return counts


def _failed(played: Played, members: Sequence[str], width: float) -> list[float]:
    """Calls that failed, a second: as records tell, or as endpoints saw and the daemon counted where that is more."""
    told, seen = [0.0] * _BINS, [0.0] * _BINS
    for at in played.in_vain.get(played.scenarios[0].name, ()):
        if 0 <= at < played.times.offered_until:
            told[int(at / width)] += 1 / width
    for earlier, later in pairwise(played.samples):
        if 0 <= later.at < played.times.offered_until:
            seen[int(later.at / width)] += (later.in_vain(members) - earlier.in_vain(members)) / width
    return seen if sum(seen) > sum(told) else told
