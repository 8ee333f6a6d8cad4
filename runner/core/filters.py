"""Which jobs: the AIP-160 subset of ListJobs and WatchJobs, parsed into values that a ledger turns into its own query.

    state = RUNNING AND labels.team = "blue" AND create_time > "2026-01-01T00:00:00Z"

As in AIP-160: terms side by side are joined by AND, OR binds tighter than AND, NOT and `-` tightest; keywords are
upper case. A word on its own looks for itself in the title. Times are RFC 3339 with a zone; the names of states and
priorities are read in any case, with or without their prefix.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import enum
import hashlib
import operator
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn

import msgspec

from runner.core.errors import InvalidRequest, brief
from runner.core.events import JobState
from runner.core.findings import Finding
from runner.core.job import JobSummary
from runner.core.plan import Instant, Priority

#: Characters of a filter.
MAX_LENGTH: Final = 2_000
#: Parentheses and negations within each other.
MAX_DEPTH: Final = 32
_KEYWORDS: Final = ("AND", "OR", "NOT")
#: What `labels.KEY : *` asks for: that the label is there, whatever its value.
ANY: Final = "*"


class Comparison(msgspec.Struct, frozen=True):
    """One restriction: `state = RUNNING`, `labels.team : *`.

    A job that lacks what is compared (an `ended_at`, a label) meets `!=` and nothing else.
    """

    #: `state`, `queue`, `priority`, `title`, `alt_id`, `request_id`, `created_at`, `ended_at`, as in JobSummary; or
    #: `labels`.
    field: str
    #: The label's name, where `field` is `labels`; else empty.
    key: str
    #: `=` and `!=` for every field; `<`, `<=`, `>`, `>=` for `priority` and times; `:` for texts and labels: the text
    #: contains the value, the letters A–Z in any case. With a label and ANY: the job has that label.
    operator: str
    #: An int for `state`, `priority` and times, a str for everything else; never holds NUL.
    value: str | int


class Not(msgspec.Struct, frozen=True):
    """The opposite."""

    operand: Filter


class And(msgspec.Struct, frozen=True):
    """All of them."""

    operands: tuple[Filter, ...]


class Or(msgspec.Struct, frozen=True):
    """Any of them."""

    operands: tuple[Filter, ...]


Filter = Comparison | Not | And | Or


class JobQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A page of jobs."""

    filter: Filter | None = None
    #: Newest first, unless set.
    ascending: bool = False
    #: The place of the last job of the page before: its time of acceptance and id.
    after: tuple[Instant, str] | None = None
    limit: int = 50


# ---------------------------------------------------------------------------------------------------------- matching

_ORDERED: Final[dict[str, Callable[[int, int], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_FOLD_ASCII: Final = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


def matches(restriction: Filter, job: JobSummary) -> bool:
    """Whether the job meets the filter: the meaning that every ledger's query must share."""
    match restriction:
        case Comparison():
            return _compares(restriction, job)
        case Not(operand):
            return not matches(operand, job)
        case And(operands):
            return all(matches(operand, job) for operand in operands)
        case Or(operands):
            return any(matches(operand, job) for operand in operands)


def _compares(comparison: Comparison, job: JobSummary) -> bool:
    of_label = comparison.field == "labels"
    found: Any = job.labels.get(comparison.key) if of_label else getattr(job, comparison.field)
    wanted = comparison.value
    match comparison.operator:
        case "=":
            return bool(found == wanted)
        case "!=":
            return bool(found != wanted)
        case _ if found is None:
            return False
        case ":":
            return (of_label and wanted == ANY) or _folded(wanted) in _folded(found)
        case order:
            return _ORDERED[order](found, int(wanted))


def _folded(text: object) -> str:
    return str(text).translate(_FOLD_ASCII)


# ----------------------------------------------------------------------------------------------------------- parsing

_SPACE: Final = re.compile(r"\s*")
_WORD: Final = re.compile(r"""[^\s()"'=!<>:]+""")
_ARGUMENT: Final = re.compile(r"""[^\s()"'=!<>]+""")
_QUOTED: Final = re.compile(r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*\'""", re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'"}
#: NUL and halves of surrogate pairs: no database stores them, so nothing could match.
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")
_OPERATOR: Final = re.compile("<=|>=|!=|<|>|=|:")
_EQUALITY: Final = frozenset({"=", "!="})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def parse_filter(text: str) -> Filter | None:
    """Read a filter; None if it is blank, which every job meets.

    Raises InvalidRequest: BAD_FILTER, with the column of the first thing wrong and what was probably meant.
    """
    if len(text) > MAX_LENGTH:
        _refuse(MAX_LENGTH + 1, f"the filter has {len(text)} characters; {MAX_LENGTH} are allowed")
    unstorable = _UNSTORABLE.search(text)
    if unstorable is not None:
        _refuse(unstorable.start() + 1, "no job holds this character")
    parser = _FilterParser(text)
    return None if parser.ended() else parser.whole()


def parse_order(text: str) -> bool:
    """Whether an `order_by` asks for the oldest first.

    Raises InvalidRequest: BAD_ORDER, if it asks for anything but the time of acceptance.
    """
    match text.split():
        case [] | ["create_time", "desc"]:
            return False
        case ["create_time"] | ["create_time", "asc"]:
            return True
    raise InvalidRequest(
        Finding("BAD_ORDER", "order_by", f"cannot order by `{brief(text)}`; use `create_time desc` or `create_time`")
    )


def _refuse(column: int, message: str, suggestion: str = "") -> NoReturn:
    hint = f"; did you mean `{suggestion}`?" if suggestion else ""
    sentence = f"{message}, at column {column}{hint}"
    raise InvalidRequest(Finding("BAD_FILTER", "filter", sentence, suggestion, line=1, column=column))


def _closest(word: str, known: Iterable[str]) -> str:
    return next(iter(difflib.get_close_matches(word, list(known), n=1)), "")


def _as_text(word: str, _column: int) -> str:
    return word


def _as_instant(word: str, column: int) -> Instant:
    try:
        time = msgspec.convert(word, datetime)
    except msgspec.ValidationError:
        time = None
    if time is None or time.tzinfo is None:
        _refuse(column, f'`{word}` is no time; write one with a zone, as in "2026-01-31T08:00:00Z"')
    return (time - _EPOCH) // timedelta(microseconds=1)


def _as_member(names: type[enum.IntEnum], prefix: str) -> Callable[[str, int], int]:
    def read(word: str, column: int) -> int:
        name = word.upper().removeprefix(prefix)
        if name not in names.__members__:
            known = ", ".join(names.__members__)
            _refuse(column, f"`{word}` is none of {known}", _closest(name, names.__members__))
        return int(names[name])

    return read


class _Field(msgspec.Struct, frozen=True):
    """How one field of the language is compared."""

    #: As in JobSummary.
    name: str
    operators: frozenset[str]
    read: Callable[[str, int], str | int]


_TEXT: Final = _EQUALITY | {":"}
_FIELDS: Final = {
    "state": _Field("state", _TEXT, _as_member(JobState, "JOB_STATE_")),
    "priority": _Field("priority", _TEXT | set(_ORDERED), _as_member(Priority, "PRIORITY_")),
    "queue": _Field("queue", _TEXT, _as_text),
    "title": _Field("title", _TEXT, _as_text),
    "alt_id": _Field("alt_id", _TEXT, _as_text),
    "request_id": _Field("request_id", _TEXT, _as_text),
    "create_time": _Field("created_at", _EQUALITY | set(_ORDERED), _as_instant),
    "end_time": _Field("ended_at", _TEXT | set(_ORDERED), _as_instant),
}
_LABEL: Final = _Field("labels", _TEXT, _as_text)


class _FilterParser:
    """Recursive descent over the grammar of AIP-160, with the cursor always on the next token."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._skip_space()

    def ended(self) -> bool:
        return self._at == len(self._text)

    def whole(self) -> Filter:
        found = self._all()
        if not self.ended():
            _refuse(self._column(), f"unexpected `{self._text[self._at]}`")
        return found

    def _all(self) -> Filter:
        operands = [self._any()]
        while not self.ended() and self._text[self._at] != ")":
            self._keyword("AND")
            operands.append(self._any())
        return operands[0] if len(operands) == 1 else And(tuple(operands))

    def _any(self) -> Filter:
        operands = [self._term()]
        while self._keyword("OR"):
            operands.append(self._term())
        return operands[0] if len(operands) == 1 else Or(tuple(operands))

    def _term(self) -> Filter:
        if self._keyword("NOT") or self._take("-"):
            return Not(self._nested(self._term))
        opened = self._column()
        if not self._take("("):
            return self._restriction()
        inner = self._nested(self._all)
        if not self._take(")"):
            _refuse(opened, "this `(` is never closed")
        return inner

    def _nested(self, parse: Callable[[], Filter]) -> Filter:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            _refuse(self._column(), f"parentheses and negations nest deeper than {MAX_DEPTH}")
        found = parse()
        self._depth -= 1
        return found

    def _restriction(self) -> Filter:
        column = self._column()
        quoted = self._quoted()
        if quoted is not None:
            return Comparison("title", "", ":", quoted)
        word = self._match(_WORD)
        if word is None:
            self._refuse_here("a field or a word")
        if word in _KEYWORDS:
            _refuse(column, f"`{word}` stands where a field or a word should")
        field, key = self._field(word, column)
        sign = self._match(_OPERATOR)
        if sign is None:
            if field is not None:
                _refuse(self._column(), f"an operator must follow `{word}`; quote it to look for it in titles")
            if word.upper() in _KEYWORDS:
                # A filter that was meant to join two conditions would find nothing, without a word.
                _refuse(
                    column,
                    f"`{word}` is no keyword (they are capitals); quote it to search titles",
                    word.upper(),
                )
            return Comparison("title", "", ":", word)
        if field is None:
            known = [*_FIELDS, "labels.KEY"]
            _refuse(column, f"there is no field `{word}`; there are {', '.join(known)}", _closest(word, known))
        if sign not in field.operators:
            allowed = " ".join(sorted(field.operators))
            _refuse(column, f"`{word}` cannot be compared by `{sign}`, only by {allowed}")
        return self._comparison(field, key, sign)

    def _field(self, word: str, column: int) -> tuple[_Field | None, str]:
        if word != "labels" and not word.startswith("labels."):
            return _FIELDS.get(word), ""
        key = word.removeprefix("labels.") if word != "labels" else ""
        if word == "labels.":
            key = self._quoted() or ""
        if not key:
            _refuse(column, "name the label, as in `labels.team`")
        return _LABEL, key

    def _comparison(self, field: _Field, key: str, sign: str) -> Filter:
        column = self._column()
        value = self._quoted()
        if value is None:
            value = self._match(_ARGUMENT)
        if value is None:
            self._refuse_here("a value")
        if not self.ended() and self._text[self._at] not in "()" and not self._text[self._at - 1].isspace():
            _refuse(self._column(), f"unexpected `{self._text[self._at]}` in a value; quote the whole of it")
        if sign == ":" and value == ANY and field is not _LABEL:
            return _present(field, column)
        # Only texts are searched; for the rest "has" is "is".
        sign = "=" if sign == ":" and field.read is not _as_text else sign
        return Comparison(field.name, key, sign, field.read(value, column))

    def _quoted(self) -> str | None:
        if self.ended() or self._text[self._at] not in "\"'":
            return None
        column = self._column()
        found = self._match(_QUOTED)
        if found is None:
            _refuse(column, "this quote is never closed")
        return _ESCAPE.sub(lambda escape: _unescape(escape, column), found[1:-1])

    def _keyword(self, word: str) -> bool:
        found = _WORD.match(self._text, self._at)
        return found is not None and found.group() == word and self._match(_WORD) == word

    def _take(self, character: str) -> bool:
        found = self._text.startswith(character, self._at)
        if found:
            self._at += 1
            self._skip_space()
        return found

    def _match(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.match(self._text, self._at)
        if found is None:
            return None
        self._at = found.end()
        self._skip_space()
        return found.group()

    def _skip_space(self) -> None:
        found = _SPACE.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _column(self) -> int:
        return self._at + 1

    def _refuse_here(self, wanted: str) -> NoReturn:
        found = "the filter ends" if self.ended() else f"there is `{self._text[self._at]}`"
        _refuse(self._column(), f"{found} where {wanted} should stand")


def _present(field: _Field, column: int) -> Comparison:
    if field.read is _as_text:
        return Comparison(field.name, "", "!=", "")
    if field.name == "ended_at":
        return Comparison(field.name, "", ">=", 0)
    _refuse(column, f"every job has a {field.name}; compare it with something")


def _unescape(escape: re.Match[str], column: int) -> str:
    code, letter = escape.groups()
    if code is None and letter not in _ESCAPES:
        _refuse(column, f"there is no escape `\\{letter}` in a quoted value")
    character = chr(int(code, 16)) if code is not None else _ESCAPES[letter]
    if _UNSTORABLE.match(character):
        _refuse(column, f"no job holds the character `\\u{code}`")
    return character


# -------------------------------------------------------------------------------------------------------- page tokens


def page_token(after: tuple[Instant, str], *, filter_text: str, order_text: str) -> str:
    """The opaque token of the page after the job at `after`, good for the same filter and order only."""
    content = msgspec.msgpack.encode((_binding(filter_text, order_text), *after))
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def parse_page_token(token: str, *, filter_text: str, order_text: str) -> tuple[Instant, str] | None:
    """The place after which the page begins; None for an empty token, the first page.

    Raises InvalidRequest: BAD_PAGE_TOKEN, if we never made it, or made it for another filter or order.
    """
    if not token:
        return None
    try:
        content = base64.b64decode(token.encode() + b"=" * (-len(token) % 4), b"-_", validate=True)
        binding, instant, job_id = msgspec.msgpack.decode(content, type=tuple[bytes, int, str])
    except (binascii.Error, UnicodeEncodeError, msgspec.DecodeError):
        _refuse_token("this is no page token of ours; begin again without one")
    if binding != _binding(filter_text, order_text):
        _refuse_token("this page token belongs to another filter or order; keep both, or begin again without one")
    return instant, job_id


def _refuse_token(message: str) -> NoReturn:
    raise InvalidRequest(Finding("BAD_PAGE_TOKEN", "page_token", message))


def _binding(filter_text: str, order_text: str) -> bytes:
    question = msgspec.msgpack.encode((filter_text.strip(), parse_order(order_text)))
    return hashlib.sha256(question).digest()[:9]
