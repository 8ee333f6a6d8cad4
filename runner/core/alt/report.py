"""Collects what is wrong with a descriptor, then says it with line and column."""

from __future__ import annotations

import difflib
import heapq
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from runner.core.alt.limits import DEEPEST, DescriptorLimits
from runner.core.findings import Finding

#: Steps from the root of a descriptor: keys and indices.
Path = tuple[str | int, ...]
#: Line and column, from 1; zeros where the format has none.
Position = tuple[int, int]

NOWHERE: Position = (0, 0)
_PLAIN_KEY = re.compile(r"[^\W\d][\w-]*")
_LONGEST_SHOWN = 60
_CLOSEST_COMPARED = 100
#: Words looked at for suggestions, in all: a hundred unknown names among ten thousand would take seconds.
_MOST_COMPARED = 100_000


class Problem(msgspec.Struct, frozen=True):
    """A finding whose position is not looked up yet."""

    reason: str
    path: Path
    message: str
    suggestion: str = ""
    #: Where it is already known.
    position: Position = NOWHERE
    #: It speaks of the key, not of the value behind it.
    at_key: bool = False


class Unreadable(Exception):
    """Nothing more can be found out about this descriptor."""


#: Positions of problems, by path; each has that of the key and that of the value.
Locate = Callable[[Sequence[Path]], Mapping[Path, tuple[Position, Position]]]


class Report:
    """The errors and warnings of one descriptor; keeps the first `max_findings` of each and counts the rest."""

    def __init__(self, limits: DescriptorLimits) -> None:
        self.limits = limits
        #: How deep containers may be nested.
        self.depth = min(limits.max_depth, DEEPEST)
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []
        #: Keys of the file that were read under another name.
        self.read_as: dict[str | int, str] = {}
        self._compared = 0
        self._untold = {"error": 0, "warning": 0}

    @property
    def full(self) -> bool:
        """True if further errors would only be counted."""
        return len(self.errors) >= self.limits.max_findings

    def error(
        self,
        reason: str,
        path: Path,
        message: str,
        *,
        suggestion: str = "",
        position: Position = NOWHERE,
        at_key: bool = False,
        like: tuple[str, Collection[str]] | None = None,
    ) -> None:
        """Refuse the descriptor. `like` is a word and those it may stand for; the nearest becomes the suggestion."""
        if self.full:
            self._untold["error"] += 1
            return
        suggestion = suggestion or (self._nearest(*like) if like else "")
        self.errors.append(Problem(reason, path, message, suggestion, position, at_key))

    def warn(
        self,
        reason: str,
        path: Path,
        message: str,
        *,
        suggestion: str = "",
        at_key: bool = False,
        like: tuple[str, Collection[str]] | None = None,
    ) -> None:
        """Tell the submitter, and go on."""
        if len(self.warnings) >= self.limits.max_findings:
            self._untold["warning"] += 1
            return
        suggestion = suggestion or (self._nearest(*like) if like else "")
        self.warnings.append(Problem(reason, path, message, suggestion, NOWHERE, at_key))

    def adopt(self, part: Report, path: Path) -> None:
        """Take over what another report tells of a part of the file, which stands at `path`."""
        for tell, problems in ((self.error, part.errors), (self.warn, part.warnings)):
            for problem in map(part._as_written, problems):
                tell(
                    problem.reason,
                    (*path, *problem.path),
                    problem.message,
                    suggestion=problem.suggestion,
                    at_key=problem.at_key,
                )
        for word, untold in part._untold.items():
            self._untold[word] += untold

    def _nearest(self, word: str, candidates: Collection[str]) -> str:
        self._compared += len(candidates)
        return nearest(word, candidates) if self._compared <= _MOST_COMPARED else ""

    def fatal(self, reason: str, message: str, *, path: Path = (), position: Position = NOWHERE) -> Unreadable:
        """Record an error after which nothing more can be said; the caller raises what this returns."""
        self.error(reason, path, message, position=position)
        return Unreadable()

    def findings(self, locate: Locate) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
        """All errors and all warnings, each in the order of the file."""
        errors = [self._as_written(problem) for problem in self.errors]
        warnings = [self._as_written(problem) for problem in self.warnings]
        paths = [problem.path for problem in (*errors, *warnings) if problem.position == NOWHERE]
        places = locate(paths) if paths else {}
        return self._told(errors, places, "error"), self._told(warnings, places, "warning")

    def _as_written(self, problem: Problem) -> Problem:
        if problem.path[:1] and problem.path[0] in self.read_as:
            path = (self.read_as[problem.path[0]], *problem.path[1:])
            return msgspec.structs.replace(problem, path=path)
        return problem

    def _told(
        self, problems: list[Problem], places: Mapping[Path, tuple[Position, Position]], word: str
    ) -> tuple[Finding, ...]:
        found = sorted(
            (_finding(problem, places) for problem in problems), key=lambda finding: (finding.line, finding.column)
        )
        untold = self._untold[word]
        if untold:
            found.append(
                Finding(
                    "TOO_MANY_FINDINGS",
                    "",
                    f"{untold} more {word}{'s' * (untold > 1)} are not shown; "
                    f"setting `descriptor.max_findings` is {self.limits.max_findings}.",
                )
            )
        return tuple(found)


def _finding(problem: Problem, places: Mapping[Path, tuple[Position, Position]]) -> Finding:
    position = problem.position
    if position == NOWHERE:
        at_key, at_value = places.get(problem.path, (NOWHERE, NOWHERE))
        position = at_key if problem.at_key else at_value
    return Finding(problem.reason, written(problem.path), problem.message, problem.suggestion, *position)


def written(path: Path) -> str:
    """The path as people write it: `tasks[3].parameters["a key"]`; a long key is cut, as it comes with each finding."""
    out = ""
    for step in path:
        if isinstance(step, int):
            out += f"[{step}]"
        elif len(step) <= _LONGEST_SHOWN and _PLAIN_KEY.fullmatch(step):
            out += f".{step}" if out else step
        else:
            out += f"[{json.dumps(shown(step), ensure_ascii=False)}]"
    return out


def shown(text: str) -> str:
    """A text as a sentence may quote it: short, on one line, printable."""
    cut = text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


_KINDS = {bool: "true or false", str: "text", int: "a number", float: "a number", list: "a list", dict: "an object"}


def kind_of(value: Any) -> str:
    """What a value is, in the words of the formats."""
    return "null" if value is None else _KINDS.get(type(value), type(value).__name__)


def nearest(word: str, candidates: Iterable[str]) -> str:
    """The candidate that `word` was probably meant to be, or "". Linear in their number."""
    if not word or len(word) > _LONGEST_SHOWN:
        return ""
    by_fold = {candidate.casefold(): candidate for candidate in candidates if len(candidate) <= 2 * len(word) + 2}
    fold = word.casefold()
    near: Iterable[str] = by_fold
    if len(by_fold) > _CLOSEST_COMPARED:
        near = heapq.nlargest(_CLOSEST_COMPARED, by_fold, key=lambda other: _likeness(fold, other))
    closest = difflib.get_close_matches(fold, near, n=1)
    return by_fold[closest[0]] if closest else ""


def _likeness(word: str, other: str) -> int:
    return (word[:3] == other[:3]) + (word[-3:] == other[-3:]) - abs(len(word) - len(other))
