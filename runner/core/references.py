"""`${…}` references inside parameters: found, and replaced by what they name.

    ${tasks.ID.output}          the output of a task that ran before
    ${tasks.ID.output.PATH}     a part of it; PATH is JMESPath
    ${tasks.ID.artifacts.NAME}  the value of a JSON file that it left; ${tasks.ID.artifacts.NAME.PATH} a part of it
    ${inputs.NAME}              what the submitter passed; ${inputs.NAME.PATH} a part of it
    ${inputs}                   all of that, as an object
    ${variables.NAME}           a variable, where the descriptor has some; ${variables.NAME.PATH} a part of it
    ${job.id}                   the job's id
    ${secrets.NAME}             a secret, looked up at the moment of the call

`$${` is a literal `${`. A bare ID ends before the first `.output` or `.artifacts.`; an id that holds one, or a brace or
a quote, is written as a JSON text: `${tasks."my.output".output}`. So is a NAME that is not a plain word, such as
`"report.json"`. Inside of a body, ID is looked for in the same run of it first, then in what is around it.
"""

from __future__ import annotations

import enum
import functools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jmespath
import jmespath.exceptions
import jmespath.functions
import jmespath.parser
import msgspec

from runner.core.errors import AttemptError
from runner.core.events import Json
from runner.core.plan import Plan, TaskId, every_task, operands

#: Characters of one reference. JMESPath's parser recurses.
LONGEST = 2_000

#: Times that a path may repeat its value.
MOST_GROWTH = 100

_OPENING = re.compile(r"\$\$\{|\$\{")
#: What matters on the way to the closing brace: braces, and the quoted texts of JMESPath, in which they do not.
_INSIDE = re.compile(r"""[{}]|"(?:[^"\\]++|\\.)*+"|'(?:[^'\\]++|\\.)*+'|`(?:[^`\\]++|\\.)*+`""", re.DOTALL)
_JSON_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')
#: What of a task is meant.
_PART = re.compile(r"\.output(?=[.\[|\s]|\Z)|\.artifacts\.")
_BARE_ID = re.compile(rf'[^"{{}}]+?(?={_PART.pattern})')
_BARE_NAME = re.compile(r"[^\W\d][\w-]*")
_SECRET_NAME = re.compile(r"[\w./-]+")
# jmespath promises JMESPathError and raises what Python's own functions raise as well.
_INAPPLICABLE = (
    jmespath.exceptions.JMESPathError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
_FUNCTIONS = frozenset(jmespath.functions.Functions.FUNCTION_TABLE)


class Root(enum.StrEnum):
    """What a reference begins with."""

    TASKS = "tasks"
    INPUTS = "inputs"
    VARIABLES = "variables"
    JOB = "job"
    SECRETS = "secrets"


class Reference(msgspec.Struct, frozen=True):
    """A well-formed reference."""

    root: Root
    #: The id of the task, or the name of the input, the secret, or the job's property; empty for all inputs.
    name: str
    #: JMESPath into the value; empty for the whole.
    path: str = ""
    #: The name of a file that the task left; empty for its output.
    artifact: str = ""


class Malformed(msgspec.Struct, frozen=True):
    """What stands in `${…}` and is no reference."""

    #: BAD_REFERENCE or UNKNOWN_REFERENCE.
    reason: str
    message: str
    #: A word, and those that may have been meant.
    word: str = ""
    meant: tuple[str, ...] = ()


#: Texts as they are, and what stands between them.
Piece = str | Reference | Malformed
Place = tuple[str | int, ...]


def no_variable(name: str) -> Json:
    """For scopes without variables."""
    raise KeyError(name)


def no_artifact(_: TaskId, name: str) -> Json:
    """For scopes without artifacts."""
    raise KeyError(name)


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What references resolve to, for one attempt."""

    #: The output of a task that succeeded. May raise KeyError.
    output: Callable[[TaskId], Json]
    inputs: Mapping[str, Json]
    job_id: str
    #: The value of a secret, or None if there is none.
    secret: Callable[[str], str | None]
    #: The value of a variable. May raise KeyError.
    variable: Callable[[str], Json] = no_variable
    #: The value of a JSON file that a task left, by its name. May raise KeyError.
    artifact: Callable[[TaskId, str], Json] = no_artifact


# ----------------------------------------------------------------------------------------------------- parsing


def parse(text: str) -> list[Piece]:
    """Split a text into literals and references; literals are unescaped, none is empty."""
    pieces: list[Piece] = []
    literal: list[str] = []
    index = 0
    while opening := _OPENING.search(text, index):
        literal.append(text[index : opening.start()])
        index = opening.end()
        if opening[0] == "$${":
            literal.append("${")
            continue
        end = _closing(text, index)
        if before := "".join(literal):
            pieces.append(before)
        literal = []
        if end < 0:
            message = "This `${` is not closed; write `$${` for a literal one."
            return [*pieces, Malformed("BAD_REFERENCE", message)]
        pieces.append(_reference(text[index:end].strip()))
        index = end + 1
    if rest := "".join([*literal, text[index:]]):
        pieces.append(rest)
    return pieces


def _closing(text: str, start: int) -> int:
    """The index of the brace that closes the one before `start`, or -1."""
    depth = 1
    for match in _INSIDE.finditer(text, start, start + LONGEST):
        if match[0] == "{":
            depth += 1
        elif match[0] == "}":
            depth -= 1
            if not depth:
                return match.start()
    return -1


def _reference(inside: str) -> Reference | Malformed:  # noqa: PLR0911 - one return for each root
    root, _, rest = inside.partition(".")
    match root:
        case "tasks":
            return _part_of_task(rest)
        case "inputs":
            return Reference(Root.INPUTS, "") if inside == "inputs" else _named_value(Root.INPUTS, "an input", rest)
        case "variables":
            return _named_value(Root.VARIABLES, "a variable", rest)
        case "job" if rest == "id":
            return Reference(Root.JOB, rest)
        case "job":
            return Malformed("UNKNOWN_REFERENCE", f"A job has no `{rest[:60]}` to refer to; there is `job.id`.")
        case "secrets" if _SECRET_NAME.fullmatch(rest):
            return Reference(Root.SECRETS, rest)
        case "secrets":
            return Malformed("BAD_REFERENCE", "A reference to a secret is written `${secrets.NAME}`.")
    message = (
        f"`${{{inside[:60]}}}` refers to nothing; a reference begins with `tasks.`, `inputs.`, `variables.`, "
        "`job.` or `secrets.`, and `$${` is a literal."
    )
    return Malformed("UNKNOWN_REFERENCE", message, root[:60], tuple(Root))


def _part_of_task(rest: str) -> Reference | Malformed:
    quoted = _JSON_TEXT.match(rest)
    found = quoted or _BARE_ID.match(rest)
    name = (_unquoted(found[0]) if quoted else found[0]) if found else None
    part = _PART.match(rest, found.end()) if found else None
    if name is None or part is None:
        message = (
            "A reference to a task is written `${tasks.ID.output}`, `${tasks.ID.output.PATH}` or "
            "`${tasks.ID.artifacts.NAME.PATH}`."
        )
        return Malformed("BAD_REFERENCE", message)
    after = rest[part.end() :]
    if part[0] == ".output":
        return _with_path(Root.TASKS, name, after)
    artifact = _named_value(Root.TASKS, "an artifact", after, f"{Root.TASKS}.ID.artifacts")
    if isinstance(artifact, Malformed):
        return artifact
    return Reference(Root.TASKS, name, artifact.path, artifact.name)


def _named_value(root: Root, what: str, rest: str, before: str = "") -> Reference | Malformed:
    quoted = _JSON_TEXT.match(rest)
    found = quoted or _BARE_NAME.match(rest)
    name = (_unquoted(found[0]) if quoted else found[0]) if found else None
    if found is None or not name:
        return Malformed("BAD_REFERENCE", f"A reference to {what} is written `${{{before or root}.NAME}}`.")
    return _with_path(root, name, rest[found.end() :])


def _unquoted(text: str) -> str | None:
    try:
        name = str(json.loads(text))
        name.encode()  # refuses half of a surrogate pair, which no message about it could hold
    except (json.JSONDecodeError, UnicodeEncodeError):
        return None
    return name


def _with_path(root: Root, name: str, after: str) -> Reference | Malformed:
    """`after` is empty, or `.field…`, `[0]…` or `| …`: what JMESPath continues an expression with."""
    after = after.strip()
    if not after:
        return Reference(root, name)
    path = after[1:] if after.startswith(".") else after if after.startswith("[") else f"@ {after}"
    problem = _path_problem(path)
    return problem or Reference(root, name, path)


@functools.lru_cache(maxsize=4096)
def _path_problem(path: str) -> Malformed | None:
    try:
        compiled = compiled_path(path).parsed
        unknown = next((function for function in _functions(compiled) if function not in _FUNCTIONS), None)
        grows = _growth(compiled) > MOST_GROWTH
    except jmespath.exceptions.JMESPathError as e:
        sentence = " ".join(str(e).split())[:200].rstrip(".")
        return Malformed("BAD_REFERENCE", f"The path `{path[:60]}` is no JMESPath: {sentence}.")
    except RecursionError:
        return Malformed("BAD_REFERENCE", f"The path `{path[:60]}` is nested too deep.")
    if unknown is not None:
        message = f"JMESPath has no function `{unknown[:60]}`."
        return Malformed("BAD_REFERENCE", message, unknown, tuple(sorted(_FUNCTIONS)))
    if grows:
        message = f"The path `{path[:60]}` could make far more of its value than there is; use a task data_processing."
        return Malformed("BAD_REFERENCE", message)
    return None


def _functions(node: Any) -> Iterator[str]:
    if node["type"] == "function_expression":
        yield node["value"]
    for child in _children(node):
        yield from _functions(child)


def _children(node: Any) -> list[Any]:
    """The nodes below one; those of a slice are numbers, or nothing."""
    return [child for child in node["children"] if isinstance(child, dict)]


def _growth(node: Any) -> int:
    """How many times larger than the value the result may be, at most and roughly.

    Paths are applied on the event loop, and `[@, @][] | [@, @][] | …` doubles with each step. JMESPath has no
    way back to the root, so what is not repeated by a multi-select, a function's arguments or `join` stays linear.
    """
    inner = [_growth(child) for child in _children(node)]
    match node["type"]:
        case "subexpression" | "index_expression" | "pipe" | "projection" | "value_projection" | "filter_projection":
            return math.prod(inner)
        case "multi_select_list" | "multi_select_dict" | "or_expression" | "and_expression" | "comparator":
            return sum(inner)
        case "function_expression" if node["value"] == "join" and node["children"][0]["type"] != "literal":
            return MOST_GROWTH + 1
        case "function_expression" if any(child["type"] == "expref" for child in node["children"]):
            return math.prod(inner)
        case "function_expression":
            # A text inside of what is written as a text has its quotes and backslashes doubled.
            return sum(inner) * (2 if node["value"] == "to_string" else 1)
    return max(inner, default=1)


@functools.lru_cache(maxsize=4096)
def compiled_path(path: str) -> jmespath.parser.ParsedResult:
    """The compiled expression; the same text is compiled once.

    Raises JMESPathError, RecursionError: if it is no JMESPath, or is nested too deep.
    """
    return jmespath.parser.Parser().parse(path)


# ----------------------------------------------------------------------------------------------------- finding


def scan(value: Json) -> Iterator[tuple[Place, Reference | Malformed]]:
    """What stands in the `${…}` of all texts of a value, and where. Keys are left alone."""
    if isinstance(value, str):
        if "${" in value:
            yield from (((), piece) for piece in parse(value) if not isinstance(piece, str))
        return
    inside: Iterable[tuple[str | int, Json]] = ()
    if isinstance(value, dict):
        inside = value.items()
    elif isinstance(value, list):
        inside = enumerate(value)
    for step, item in inside:
        if isinstance(item, str | dict | list):
            yield from (((step, *place), found) for place, found in scan(item))


def find(value: Json) -> Iterator[Reference]:
    """The well-formed references of a value, in order, doubles and all."""
    for _, found in scan(value):
        if isinstance(found, Reference):
            yield found


def has_opening(value: Json) -> bool:
    """True if `${` stands in a text of the value, be it a reference or malformed. Compiles no path, so it is cheap."""
    if isinstance(value, str):
        return "${" in value and any(opening[0] == "${" for opening in _OPENING.finditer(value))
    if isinstance(value, dict):
        return any(map(has_opening, value.values()))
    return isinstance(value, list) and any(map(has_opening, value))


def may_be_reference(value: Json) -> bool:
    """True if the value is a text that is one reference and nothing else, or one that is malformed. Cheap, too."""
    return isinstance(value, str) and value.startswith("${") and _closing(value, 2) == len(value) - 1


def is_reference(value: Json) -> bool:
    """True if the value is a text that is one reference and nothing else: its type is known when it runs."""
    if not isinstance(value, str) or not value.startswith("${"):
        return False
    pieces = parse(value)
    return len(pieces) == 1 and isinstance(pieces[0], Reference)


def required_inputs(plan: Plan) -> set[str]:
    """The inputs that a submitter must pass."""
    values = (value for task in every_task(plan) for value in (task.parameters, *operands(task.control)))
    found = (found for value in values for found in find(value))
    return {reference.name for reference in found if reference.root is Root.INPUTS and reference.name}


# --------------------------------------------------------------------------------------------------- resolving


def resolve(value: Json, scope: Scope) -> Json:
    """The value with every reference replaced; what holds none is the same object.

    A text that is one reference and nothing else becomes the value it names. Inside a longer text a text stands as
    itself, null as nothing, and anything else as compact JSON.

    Raises AttemptError: UNRESOLVED_REFERENCE, if something is not there or a path cannot be applied.
    """
    match value:
        case str():
            return _resolved_text(value, scope) if "${" in value else value
        case dict():
            return {key: resolve(item, scope) for key, item in value.items()}
        case list():
            return [resolve(item, scope) for item in value]
    return value


def merged(outputs: Mapping[TaskId, Json]) -> Json:
    """What outputs are together: one by itself as it is, and several as one object.

    Objects are merged key by key, a later one winning; anything else stands under its task's id.
    """
    if len(outputs) == 1:
        return next(iter(outputs.values()))
    together: dict[str, Json] = {}
    for task_id, output in outputs.items():
        together |= output if isinstance(output, dict) else {task_id: output}
    return together


def _resolved_text(text: str, scope: Scope) -> Json:
    pieces = parse(text)
    if len(pieces) == 1 and not isinstance(pieces[0], str):
        return _resolved(pieces[0], scope)
    return "".join(piece if isinstance(piece, str) else _rendered(_resolved(piece, scope)) for piece in pieces)


def _rendered(value: Json) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _resolved(piece: Reference | Malformed, scope: Scope) -> Json:
    if isinstance(piece, Malformed):
        raise _unresolved(piece.message)
    value = _named(piece, scope)
    if not piece.path:
        return value
    try:
        return compiled_path(piece.path).search(value)
    except _INAPPLICABLE as e:
        sentence = " ".join(str(e).split())[:200].rstrip(".")
        message = f"the path `{piece.path}` cannot be applied to {piece.root} `{piece.name}`: {sentence}"
        raise _unresolved(message) from None


def _named(reference: Reference, scope: Scope) -> Json:
    name = reference.name
    match reference.root:
        case Root.TASKS:
            return _of_task(reference, scope)
        case Root.INPUTS if not name:
            return dict(scope.inputs)
        case Root.INPUTS:
            if name not in scope.inputs:
                raise _unresolved(f"the input `{name}` was not passed when the job was submitted")
            return scope.inputs[name]
        case Root.VARIABLES:
            return _looked_up(scope.variable, name, f"the variable `{name}` has no value yet")
        case Root.SECRETS:
            secret = scope.secret(name)
            if secret is None:
                raise _unresolved(f"there is no secret `{name}`")
            return secret
        case Root.JOB:
            return scope.job_id


def _of_task(reference: Reference, scope: Scope) -> Json:
    name, file = reference.name, reference.artifact
    if not file:
        return _looked_up(scope.output, name, f"task `{name}` has no output")
    find = functools.partial(scope.artifact, name)
    return _looked_up(find, file, f"the artifact `{file}` of task `{name}` cannot be reached from here")


def _looked_up(find: Callable[[str], Json], name: str, otherwise: str) -> Json:
    try:
        return find(name)
    except KeyError:
        raise _unresolved(otherwise) from None


def _unresolved(message: str) -> AttemptError:
    return AttemptError("UNRESOLVED_REFERENCE", message, retryable=False)
