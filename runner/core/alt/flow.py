"""Checks control flow as a whole, and puts the bodies where they belong: inside of what runs them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from runner.core.alt.dialect import Draft
from runner.core.alt.graph import Edges, report_cycles, rings
from runner.core.alt.operands import Operands
from runner.core.alt.outline import Body, Flow, Names
from runner.core.alt.report import Report, shown
from runner.core.plan import Branch, Call, Control, Definition, Plan, TaskPlan, Type

#: Functions of a ring that a sentence names.
_LONGEST_RING = 20


def check_flow(draft: Draft, flow: Flow, report: Report) -> Edges:
    """Report what is wrong with bodies, names, operands and calls.

    Answers which segments each may refer to, directly: those that it waits for. Beyond the segments' own, there is a
    place for each one that runs others: what stands before its bodies.
    """
    indices = {task.id: index for index, task in reversed(list(enumerate(draft.plan.tasks)))}
    _check_size(flow, report)
    _settle_homes(draft, flow, indices, report)
    _settle_names(flow, report)
    _lift(draft, flow, indices, report)
    _read_operands(flow, report)
    _check_recursion(flow, report)
    return _reach(flow)


# ----------------------------------------------------------------------------------------------------- bodies


def _check_size(flow: Flow, report: Report) -> None:
    """Bodies of segments count among their dependencies; those of functions are counted here."""
    count, limit = sum(len(each.body.ids) for each in flow.functions.values()), report.limits.max_dependencies
    if count > limit:
        message = f"{count} ids in functions are more than setting `descriptor.max_dependencies` allows ({limit})."
        raise report.fatal("TOO_MANY_DEPENDENCIES", message, path=("functions",))


def _bodies(flow: Flow) -> Iterable[Body]:
    yield from (body for outline in flow.outlines.values() for body in outline.bodies)
    yield from (function.body for function in flow.functions.values())


def _settle_homes(draft: Draft, flow: Flow, indices: dict[str, int], report: Report) -> None:
    """Find the body of each segment. What no body names is the file's own."""
    homes: list[Body | None] = [None] * len(draft.plan.tasks)
    for body in _bodies(flow):
        for position, name in enumerate(body.ids):
            path = (*body.path, position)
            index = indices.get(name)
            if index is None:
                # In the bodies of segments it was told as a dependency.
                if body.owner is None:
                    report.error("UNKNOWN_DEPENDENCY", path, f"There is no task `{shown(name)}`.", like=(name, indices))
                continue
            if (other := homes[index]) is not None:
                message = f"`{shown(name)}` is in {_called(draft, other)} already; a segment stands in one body."
                report.error("SHARED_BODY", path, message)
                continue
            homes[index] = body
            body.members.append(index)
    flow.file.members = [index for index, body in enumerate(homes) if body is None]
    flow.homes = [body or flow.file for body in homes]
    if not flow.file.members and not report.errors:
        message = "Every segment is in a body, so there is nothing to begin with."
        report.error("NO_TASKS", (draft.list_name,), message)


def _called(draft: Draft, body: Body) -> str:
    """A body in a sentence."""
    if body.owner is not None:
        return f"the body of `{shown(draft.plan.tasks[body.owner].id)}`"
    return f"the body of function `{shown(body.function)}`"


# ------------------------------------------------------------------------------------------------------ names


def _settle_names(flow: Flow, report: Report) -> None:
    """Give each body its scope, and those segments one that have variables of their own."""
    waiting = [flow.file]
    for function in flow.functions.values():
        parameters = {name: parameter.type for name, parameter in function.parameters.items()}
        function.body.names = Names(parameters, flow.file.names)
        function.body.depth = 1
        waiting.append(function.body)
    deepest = report.depth
    flow.file.depth = 0
    while waiting:
        body = waiting.pop()
        if body.depth > deepest:
            message = f"Bodies are nested deeper than setting `descriptor.max_depth` allows ({deepest})."
            raise report.fatal("TOO_DEEP", message, path=body.path)
        for index in body.members:
            names = body.names
            own = {variable.name: variable.type for variable in flow.variables.get(index, ())}
            loops = _loop_variable(flow, index)
            if index in flow.outlines and flow.outlines[index].kind == "while":
                # Its condition sees how many rounds there were.
                own |= loops
            if own:
                names = flow.own[index] = Names(own, names)
            for inner in _outlined(flow, index):
                inner.names = Names(dict(loops), names)
                inner.depth = body.depth + 1
                waiting.append(inner)
    _declare_results(flow)


def _loop_variable(flow: Flow, index: int) -> dict[str, Type]:
    outline = flow.outlines.get(index)
    variable = None if outline is None else outline.fields.get("variable")
    if outline is None or variable is None:
        return {}
    return {variable: Type.ANY if outline.kind == "for_each" else Type.NUMBER}


def _declare_results(flow: Flow) -> None:
    """A call's result variable that nobody declares begins in the body of the call, and takes whatever comes."""
    for index, outline in flow.outlines.items():
        result = outline.fields.get("result")
        if result is not None and result not in flow.names(index):
            flow.homes[index].names.types[result] = Type.ANY


# ------------------------------------------------------------------------------------------------ dependencies


def _lift(draft: Draft, flow: Flow, indices: dict[str, int], report: Report) -> None:
    """Lift each dependency to where the two ways meet: between siblings, of whom each may run the other end."""
    # As keys, each once: thousands may wait for thousands.
    found: list[dict[int, None]] = [{} for _ in flow.homes]
    for index, written in enumerate(draft.dependencies):
        own = len(written) - sum(len(body.ids) for body in _outlined(flow, index))
        for position, name in enumerate(written[:own]):
            target = indices.get(name)
            if target is None:
                continue
            meeting = _meeting(flow, index, target)
            if meeting is not None and meeting[0] != meeting[1]:
                found[meeting[0]][meeting[1]] = None
            elif problem := _apart(draft, flow, index, target, meeting):
                report.error(problem[0], draft.dependency_path(index, position), problem[1])
    flow.waits = [list(waits) for waits in found]
    if not any(problem.reason == "CYCLE" for problem in report.errors):
        report_cycles(draft, flow.waits, report)


def _apart(
    draft: Draft, flow: Flow, index: int, target: int, meeting: tuple[int, int] | None
) -> tuple[str, str] | None:
    """Why a segment cannot wait for another: a reason and a sentence; None where a ring told it."""
    name = shown(draft.plan.tasks[target].id)
    if meeting is None:
        if not (flow.homes[index].reached and flow.homes[target].reached):
            return None
        return "OTHER_BODY", f"`{name}` and this run in different functions, so neither can wait for the other."
    both = meeting[0]
    if target == both:
        return None
    if index == both:
        return "CYCLE", f"This runs `{name}`, so it cannot wait for it."
    owner = shown(draft.plan.tasks[both].id)
    return "OTHER_BODY", f"`{name}` and this are in different branches of `{owner}`, of which it takes one."


def _outlined(flow: Flow, index: int) -> list[Body]:
    outline = flow.outlines.get(index)
    return [] if outline is None else outline.bodies


def _meeting(flow: Flow, index: int, target: int) -> tuple[int, int] | None:
    """The two segments of one body that are, or run, these two; None where there is no such body."""
    homes = flow.homes
    one, other = homes[index], homes[target]
    if not (one.reached and other.reached):
        return None
    while one is not other:
        owner = one.owner if one.depth >= other.depth else other.owner
        if owner is None:
            return None
        if one.depth >= other.depth:
            index, one = owner, homes[owner]
        else:
            target, other = owner, homes[owner]
    return index, target


# --------------------------------------------------------------------------------------------------- operands


def _read_operands(flow: Flow, report: Report) -> None:
    characters = 0
    for index, outline in flow.outlines.items():
        if flow.homes[index].depth < 0:
            continue
        operands = Operands(flow.names(index), report, characters=characters)
        control = operands.control(outline, flow.functions)
        characters = operands.characters
        flow.operands[index] = operands.found
        if control is not None:
            flow.controls[index] = control


def _check_recursion(flow: Flow, report: Report) -> None:
    """Report functions that call each other whatever happens: what nothing decides has no end."""
    names = {name: number for number, name in enumerate(flow.functions)}
    calls: list[list[int]] = [[] for _ in names]
    for index, control in flow.controls.items():
        home = flow.homes[index]
        if isinstance(control, Call) and home.function:
            calls[names[home.function]].append(names[control.function])
    functions = list(flow.functions.values())
    for ring in rings(calls):
        listed = [shown(functions[number].function.name) for number in ring[:_LONGEST_RING]]
        path = (*functions[ring[0]].path, "body")
        message = f"These call each other without a condition, so they have no end: {' → '.join([*listed, listed[0]])}."
        report.error("RECURSION", path, message)


def _reach(flow: Flow) -> Edges:
    count = len(flow.homes)
    entry = {index: count + number for number, index in enumerate(flow.outlines)}
    edges = [list(waits) for waits in flow.waits] + [[] for _ in entry]
    for index, home in enumerate(flow.homes):
        if home.owner is not None:
            edges[index].append(entry[home.owner])
        if index in entry:
            edges[entry[index]] = list(edges[index])
    return edges


def apart(plan: Plan, flow: Flow, index: int, target: int) -> str:
    """Why a segment cannot see the output of another, if it is because of the bodies in which they stand."""
    theirs = flow.homes[target]
    if any(body is theirs for _, body in flow.around(index)):
        return ""
    name = shown(plan.tasks[target].id)
    if theirs.function:
        return f"`{name}` runs only inside of function `{shown(theirs.function)}`; refer to a task that calls it."
    if theirs.owner is not None:
        owner = shown(plan.tasks[theirs.owner].id)
        return f"`{name}` runs only inside of `{owner}`; refer to `{owner}`, whose output is what its body gives."
    return f"`{name}` stands outside of the function that refers to it; pass what it needs as an argument."


# --------------------------------------------------------------------------------------------------- assembly


def assembled(plan: Plan, flow: Flow) -> Plan:
    """The plan with every body inside of what runs it. Nothing may be wrong with it."""
    return msgspec.structs.replace(
        plan,
        tasks=_members(plan, flow, flow.file),
        functions=tuple(
            msgspec.structs.replace(function.function, body=_members(plan, flow, function.body))
            for function in flow.functions.values()
        ),
    )


def _members(plan: Plan, flow: Flow, body: Body) -> tuple[TaskPlan, ...]:
    """The tasks of a body; the last of its list comes last, for its output is the body's value."""
    order = {name: position for position, name in enumerate(body.ids)}
    members = sorted(body.members, key=lambda index: order.get(plan.tasks[index].id, index))
    return tuple([_member(plan, flow, index) for index in members])


def _member(plan: Plan, flow: Flow, index: int) -> TaskPlan:
    control = flow.controls.get(index)
    bodies = [_members(plan, flow, body) for body in _outlined(flow, index)]
    return msgspec.structs.replace(
        plan.tasks[index],
        dependencies=tuple([plan.tasks[waits].id for waits in flow.waits[index]]),
        variables=flow.variables.get(index, ()),
        control=None if control is None else _filled(control, bodies),
    )


def _filled(control: Control, bodies: list[tuple[TaskPlan, ...]]) -> Control:
    match control:
        case Branch():
            return msgspec.structs.replace(control, then=bodies[0], otherwise=bodies[1])
        case Call() | Definition():
            return control
    fields: dict[str, Any] = {"body": bodies[0]}
    return msgspec.structs.replace(control, **fields)
