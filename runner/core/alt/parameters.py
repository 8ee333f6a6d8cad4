"""What the handlers take, checked before anything runs: the parameters of tasks against the structs they declare.

Nothing is refused that may be right when it runs. A text that holds a `${…}` is of unknown type until then, and so is
the parameter `input` of a workflow's node. A null that its parameter cannot be counts as left out.
"""

from __future__ import annotations

import difflib
import enum
import functools
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

import msgspec
from msgspec import inspect as types

from runner.core.alt.dialect import LOCAL_KINDS, PROMPT, Draft
from runner.core.alt.report import Path, Report, kind_of, shown, written
from runner.core.alt.type_words import in_words
from runner.core.plan import Plan

#: Names that are the runner's own, whatever the handler takes.
_OURS: Final = frozenset({"task_type"})
#: Characters of texts that are looked into beyond their types; longer ones are left to the run.
LONGEST_LOOKED_INTO: Final = 10_000
#: How alike a word and a task type are for one to be meant by the other, 0–1; `execute` means no `code_executor`.
_CLOSE: Final = 0.8
_LONGEST_KIND: Final = 40
_AT: Final = re.compile(r" - at `.*`\Z", re.DOTALL)
_OUT_OF_RANGE: Final = re.compile(r"Expected `(?:int|float)` (?:[<>]=?|that's)")


class Later(enum.Enum):
    """Stands for a value that is known when the task runs, and not before."""

    LATER = "later"


LATER: Final = Later.LATER


class ParameterProblem(msgspec.Struct, frozen=True, kw_only=True):
    """What a handler finds wrong in parameters that are of their types."""

    #: The parameter; empty if it is all of them together.
    name: str = ""
    #: Where inside of the parameter, by keys and places from 0.
    inside: tuple[str | int, ...] = ()
    #: A sentence.
    message: str
    #: What was probably meant.
    suggestion: str = ""
    #: Whether it is missing.
    missing: bool = False
    #: Whether another operator's settings would allow it: where those of the daemon are unknown, it is a warning.
    by_settings: bool = False
    #: Whether the task may run nevertheless.
    only_warns: bool = False

    @property
    def reason(self) -> str:
        """Of the finding."""
        return "NOT_ALLOWED" if self.by_settings else "MISSING_PARAMETER" if self.missing else "BAD_VALUE"


#: Looks into parameters: each is of its declared type, or it, or something inside of it, is LATER.
Look = Callable[[Mapping[str, Any]], Iterable[ParameterProblem]]


class Mistake(msgspec.Struct, frozen=True):
    """What is wrong, inside of the parameters."""

    reason: str
    path: Path
    message: str
    #: A word, and those that it may stand for.
    word: str = ""
    meant: tuple[str, ...] = ()


class _Parameter(msgspec.Struct, frozen=True):
    """A field of the struct."""

    type: Any
    required: bool
    takes_null: bool


class ParameterCheck:
    """The check of one handler, made once; a task whose parameters are sound costs one conversion."""

    def __init__(
        self,
        struct: type[msgspec.Struct],
        *,
        takes_others: bool = False,
        look: Look | None = None,
        settings_known: bool = True,
    ) -> None:
        """`takes_others`: names that the struct does not have mean something as well.

        Raises NameError, TypeError: if the struct's annotations mean nothing.
        """
        self._struct = struct
        self._parameters = {
            field.encode_name: _Parameter(field.type, field.required, _converts(None, field.type))
            for field in msgspec.structs.fields(struct)
        }
        self._names = frozenset(self._parameters) | _OURS
        self._takes_others = takes_others
        self.look = look
        self.settings_known = settings_known

    def fits(self, parameters: Mapping[str, Any]) -> bool:
        """True if there is certainly nothing to tell of types and names."""
        return (self._takes_others or parameters.keys() <= self._names) and _converts(parameters, self._struct)

    def passes(self, parameters: Mapping[str, Any]) -> bool:
        """True if there is nothing to tell of parameters in which there is no reference and no long text."""
        return (
            self.fits(parameters)
            and None not in parameters.values()
            and (self.look is None or not list(self.look(parameters)))
        )

    def mistakes(self, parameters: Mapping[str, Any], *, later: bool) -> list[Mistake]:
        """All that is wrong with types. `later`: some values are known only when it runs."""
        found = list(_wrong_fields(parameters, self._parameters, ()))
        if found or later or any(map(_is_later, parameters.values())):
            return found
        try:
            msgspec.convert(self.without_nulls(parameters), self._struct)
        except msgspec.ValidationError as error:
            found.append(Mistake("BAD_VALUE", (), f"The parameters do not fit: {_said(error)}."))
        return found

    def unknown(self, parameters: Mapping[str, Any]) -> list[str]:
        """Names that mean nothing to the handler."""
        return [] if self._takes_others else [name for name in parameters if name not in self._names]

    def free(self, parameters: Mapping[str, Any]) -> list[str]:
        """Names that are not taken."""
        return [name for name in self._parameters if name not in parameters]

    def without_nulls(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters that are not left out."""
        return {
            name: value
            for name, value in parameters.items()
            if value is not None or name not in self._parameters or self._parameters[name].takes_null
        }


class Kinds(msgspec.Struct, frozen=True):
    """What is known of the handlers, by task type."""

    #: None for a handler that declares nothing.
    checks: Mapping[str, ParameterCheck | None] = {}
    #: Of the handler that takes all other task types.
    others: ParameterCheck | None = None


NO_KINDS: Final = Kinds()


def all_pass(plan: Plan, kinds: Kinds) -> bool:
    """True if there is nothing to tell of the parameters of a short plan without references."""
    checks, others = kinds.checks, kinds.others
    for task in plan.tasks:
        kind = task.kind
        check = checks.get(kind, others)
        if (check is not None and not check.passes(task.parameters)) or (kind not in checks and meant_by(kind)):
            return False
    return True


@functools.lru_cache(maxsize=1024)
def meant_by(kind: str) -> str:
    """The task type of ours that a word for the orchestrator was probably meant to be, or nothing."""
    if len(kind) > _LONGEST_KIND:
        return ""
    known = LOCAL_KINDS if kind == PROMPT else LOCAL_KINDS | {PROMPT}
    return next(iter(difflib.get_close_matches(kind.casefold(), known, n=1, cutoff=_CLOSE)), "")


def check_parameters(draft: Draft, kinds: Kinds, report: Report) -> None:
    """Report what is wrong or odd about the parameters of all tasks."""
    if not kinds.checks and kinds.others is None:
        return
    left = report.limits.max_reference_characters
    for index, task in enumerate(draft.plan.tasks):
        check = kinds.checks.get(task.kind, kinds.others)
        if task.kind not in kinds.checks and (meant := meant_by(task.kind)):
            message = f"Nothing here claims the task type `{shown(task.kind)}`, so it goes to the orchestrator."
            report.warn("UNKNOWN_TYPE", _kind_path(draft, index), message, suggestion=meant)
        if check is None or not task.kind or (draft.flow is not None and index in draft.flow.outlines):
            continue
        parameters: dict[str, Any] = task.parameters
        later: dict[str, Any] = {"input": LATER} if task.input_from and "input" not in parameters else {}
        wrong: list[Mistake] = []
        if not check.fits(parameters):
            wrong = check.mistakes(parameters | later, later=bool(later))
            _report_types(draft, index, wrong, check, report)
        if check.look is not None and left > 0:
            told = {mistake.path[0] for mistake in wrong if mistake.path}
            given = _Given(check.without_nulls(parameters | later), told)
            _report_problems(draft, index, check, check.look(given), report)
            # What a handler looks into may be slow to read, like an expression of JMESPath, so all of it is bounded.
            left -= given.characters


def _report_types(draft: Draft, index: int, wrong: list[Mistake], check: ParameterCheck, report: Report) -> None:
    task = draft.plan.tasks[index]
    for mistake in wrong:
        like = (mistake.word, mistake.meant) if mistake.word else None
        report.error(mistake.reason, _place(draft, index, mistake.path), mistake.message, like=like)
    for name in check.unknown(task.parameters):
        # A kind that only a handler of others knows has its task's text as a prompt, which nobody wrote.
        if name == "prompt" and task.parameters[name] == task.description:
            continue
        path = _place(draft, index, (name,))
        report.warn(
            "UNKNOWN_PARAMETER",
            path if path[-1] == name else (*path[:-1], "name"),
            f"`{shown(name)}` is no parameter of `{shown(task.kind)}`; it does nothing.",
            like=(name, check.free(task.parameters)),
            at_key=path[-1] == name,
        )


def _report_problems(
    draft: Draft, index: int, check: ParameterCheck, problems: Iterable[ParameterProblem], report: Report
) -> None:
    for problem in problems:
        path = _place(draft, index, (problem.name, *problem.inside) if problem.name else ())
        harmless = problem.only_warns or (problem.by_settings and not check.settings_known)
        tell = report.warn if harmless else report.error
        tell(problem.reason, path, problem.message, suggestion=problem.suggestion)


def _kind_path(draft: Draft, index: int) -> Path:
    key = {"segments": ("task_type",), "nodes": ("piece_type",)}.get(draft.list_name, ("parameters", "task_type"))
    return (draft.list_name, index, *key)


def _place(draft: Draft, index: int, path: Path) -> Path:
    """Where it stands in the file, or would."""
    located = draft.locate_parameter(index, path or ("",))
    if not path:
        return located[:-1] if located[-1] == "" else (*located[:-1], "parameters")
    # A parameter that is not there is looked for in the text that stands for the prompt.
    found = path[0] in located or located[-len(path) :][:1] == ("value",)
    return located if found else (*located[:-1], "parameters")


# ------------------------------------------------------------------------------------------------------- types


def _wrong_fields(given: Mapping[str, Any], parameters: Mapping[str, _Parameter], path: Path) -> Iterator[Mistake]:
    for name, parameter in parameters.items():
        value = given.get(name)
        if value is not None or (name in given and parameter.takes_null):
            yield from _wrong(value, parameter.type, (*path, name))
        elif parameter.required:
            yield Mistake("MISSING_PARAMETER", (*path, name), f"`{name}` is required.")


def _wrong(value: Any, kind: Any, path: Path) -> Iterator[Mistake]:
    """What is wrong with a value: of all that is inside of it, or else the value itself."""
    if value is LATER or (isinstance(value, str) and _refers(value)):
        return
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        inside = list(_inside(value, kind, path))
        yield from inside
        if not inside and not _is_later(value) and not _is_custom(types.type_info(kind)):
            yield _mistake(value, kind, path, _said(error))


def _inside(value: Any, kind: Any, path: Path) -> Iterator[Mistake]:
    for member in _members(kind):
        origin, arguments = get_origin(member) or member, get_args(member)
        if not isinstance(origin, type):
            continue
        if isinstance(value, dict) and issubclass(origin, msgspec.Struct):
            fields = {
                field.encode_name: _Parameter(field.type, field.required, _converts(None, field.type))
                for field in msgspec.structs.fields(origin)
            }
            yield from _wrong_fields(value, fields, path)
            return
        if isinstance(value, dict) and issubclass(origin, Mapping) and arguments:
            for key, item in value.items():
                yield from _wrong(item, arguments[1], (*path, key))
            return
        if isinstance(value, list) and issubclass(origin, Iterable) and not issubclass(origin, Mapping | str):
            kinds = arguments if origin is tuple and Ellipsis not in arguments else arguments[:1] * len(value)
            for number, (item, expected) in enumerate(zip(value, kinds, strict=False)):
                yield from _wrong(item, expected, (*path, number))
            return


def _members(kind: Any) -> Iterator[Any]:
    """The types that a type is a union of, without what is annotated."""
    origin = get_origin(kind)
    if origin is Annotated:
        yield from _members(get_args(kind)[0])
    elif origin is Union or origin is UnionType:
        for member in get_args(kind):
            yield from _members(member)
    else:
        yield kind


def _mistake(value: Any, kind: Any, path: Path, said: str) -> Mistake:
    """In words that do not quote the value, which may be a secret; numbers and words that are chosen from are none."""
    info = types.type_info(kind)
    name = written(path)
    if said.startswith("Invalid enum value"):
        words = tuple(_words(info))
        listed = ", ".join(f"`{word}`" for word in words)
        if isinstance(value, str):
            return Mistake("UNKNOWN_WORD", path, f"`{shown(value)}` is no {name}; there are {listed}.", value, words)
        return Mistake("UNKNOWN_WORD", path, f"`{name}` must be one of {listed}.")
    if _OUT_OF_RANGE.match(said):
        return Mistake("OUT_OF_RANGE", path, f"`{name}` must be {_with_article(in_words(info))}, not {value}.")
    if ", got `" in said:
        return Mistake("BAD_TYPE", path, f"`{name}` must be {_with_article(in_words(info))}, not {kind_of(value)}.")
    return Mistake("BAD_VALUE", path, f"`{name}` is wrong: {said[:1].lower()}{said[1:]}.")


def _words(info: types.Type) -> Iterator[str]:
    match info:
        case types.Metadata():
            yield from _words(info.type)
        case types.UnionType():
            for member in info.types:
                yield from _words(member)
        case types.EnumType():
            yield from (str(member.value) for member in info.cls)
        case types.LiteralType():
            yield from map(str, info.values)


def _with_article(words: str) -> str:
    first = words.partition(" ")[0].rstrip(",")
    article = {"integer": "an ", "object": "an ", "number": "a ", "list": "a ", "boolean": "a ", "time": "a "}
    return article.get(first, "") + words


def _said(error: msgspec.ValidationError) -> str:
    return _AT.sub("", str(error))


def _converts(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def _is_custom(info: types.Type) -> bool:
    """True if the type is, or holds, one that only the handler itself can convert to."""
    if isinstance(info, types.CustomType):
        return True
    inner = [getattr(info, name, None) for name in ("type", "item_type", "key_type", "value_type")]
    several = [*getattr(info, "types", ()), *getattr(info, "item_types", ())]
    return any(isinstance(each, types.Type) and _is_custom(each) for each in (*inner, *several))


# -------------------------------------------------------------------------------------------------- references


def _refers(text: str) -> bool:
    return "${" in text and "${" in text.replace("$${", "")


def _is_later(value: Any) -> bool:
    """True if the value, or what is inside of it, is known only when it runs."""
    match value:
        case str():
            return _refers(value)
        case dict():
            return any(map(_is_later, value.values()))
        case list():
            return any(map(_is_later, value))
    return value is LATER


class _Given(Mapping[str, Any]):
    """Parameters as a handler looks at them; counts the characters of the texts that it asks for."""

    def __init__(self, parameters: Mapping[str, Any], wrong: Container[object]) -> None:
        self.characters = 0
        self._parameters = parameters
        self._wrong = wrong

    def __getitem__(self, name: str) -> Any:
        value = self._parameters[name]
        seen = LATER if name in self._wrong else _seen(value)
        self.characters += len(seen) if isinstance(seen, str) else 0
        return seen

    def __contains__(self, name: object) -> bool:
        return name in self._parameters

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)


def _seen(value: Any) -> Any:
    """The value as a handler looks at it."""
    match value:
        case str():
            return LATER if len(value) > LONGEST_LOOKED_INTO or _refers(value) else value
        case dict():
            return {key: _seen(item) for key, item in value.items()} if _is_later(value) else value
        case list():
            return [_seen(item) for item in value] if _is_later(value) else value
    return value
