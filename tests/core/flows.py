"""Generated plans with control flow: bodies in bodies, branches, loops, calls, and variables that change."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import strategies as st

from runner.core.plan import (
    Branch,
    Call,
    Condition,
    Control,
    Definition,
    ForEach,
    ForRange,
    Function,
    Operator,
    Parameter,
    Plan,
    TaskPlan,
    Value,
    Variable,
    While,
)
from tests.core.drama import COUNTS, START

#: Bodies in bodies.
_DEEPEST = 3


def flow_of(*tasks: TaskPlan, **more: Any) -> Plan:
    return Plan(
        alt_id="alt",
        dialect="segments",
        version="2.0",
        title="Akış",
        created_at=START,
        has_variables=True,
        **{"tasks": tasks, **more},
    )


def step(name: str, *dependencies: str, **more: Any) -> TaskPlan:
    return TaskPlan(id=name, description=f"do {name}", **{"kind": "step", "dependencies": dependencies, **more})


def control(name: str, runs: Control, *dependencies: str, **more: Any) -> TaskPlan:
    return step(name, *dependencies, kind=str(type(runs).__name__).lower(), control=runs, **more)


def when(operator: Operator, left: Any, right: Any) -> Condition:
    return Condition(operator, Value(left), Value(right))


class _Writer:
    """Writes a plan by luck; names are its own for each task, so that ids say where they are from."""

    def __init__(self, luck: random.Random) -> None:
        self.luck = luck
        self.count = 0
        self.variables = [Variable(name="list", value=[1, "iki", {"üç": 3}]), Variable(name="n", value=2)]
        #: What may be called from here: a function that calls itself has no end.
        self.functions: tuple[str, ...] = ("none",)

    def body(self, depth: int, *, most: int = 3) -> tuple[TaskPlan, ...]:
        tasks: list[TaskPlan] = []
        for _ in range(self.luck.randint(1, most)):
            earlier = [task.id for task in tasks if self.luck.random() < 0.4]
            tasks.append(self.task(depth, earlier))
        return tuple(tasks)

    def task(self, depth: int, dependencies: list[str]) -> TaskPlan:
        self.count += 1
        name = f"t{self.count}"
        weight = self.luck.choice((1.0, 0.1, 7.5))
        if depth >= _DEEPEST or self.luck.random() < 0.5:
            return step(name, *dependencies, weight=weight, retries=self.luck.choice((0, 0, 2)))
        own = (Variable(name="count", value=0),)
        return control(name, self.control(depth + 1, name), *dependencies, weight=weight, variables=own)

    def control(self, depth: int, name: str) -> Control:
        parallel = self.luck.choice((1, 1, 2, 5))
        match self.luck.randint(0, 5):
            case 0:
                operator, number = self.luck.choice((Operator.GT, Operator.LTE)), self.luck.randint(0, 4)
                condition = when(operator, "${variables.n}", number)
                otherwise = self.body(depth) if self.luck.random() < 0.6 else ()
                return Branch(condition=condition, then=self.body(depth), otherwise=otherwise)
            case 1:
                items = self.luck.choice(("${variables.list}", [], ["a", "b"]))
                return ForEach(variable="item", items=Value(items), body=self.body(depth, most=2), parallel=parallel)
            case 2:
                start, end, by = self.luck.randint(0, 3), self.luck.randint(0, 3), self.luck.choice((1, 2, -1))
                bounds = {"start": Value(start), "end": Value(end), "step": Value(by)}
                return ForRange(variable="i", body=self.body(depth, most=2), parallel=parallel, **bounds)
            case 3:
                return self.counting(name, depth)
            case 4:
                return Call(function=self.luck.choice(self.functions), arguments={"x": "${variables.n}"}, result="got")
        return Definition()

    def counting(self, name: str, depth: int) -> While:
        """A loop that ends because one of its tasks counts, in the variable of the loop's own."""
        body = (step(f"{name}_count", kind=COUNTS), *self.body(depth, most=1))
        return While(variable="round", condition=when(Operator.LT, "${variables.count}", 3), body=body)


@st.composite
def flows(draw: st.DrawFn) -> Plan:
    """Plans of which every loop ends, however its tasks do."""
    luck = random.Random(draw(st.integers(0, 2**32)))  # noqa: S311  no secret
    writer = _Writer(luck)
    twice = Function(name="twice", parameters=(Parameter(name="x"),), body=writer.body(_DEEPEST - 1, most=2))
    writer.functions = ("none", "twice")
    none = Function(name="none", parameters=(Parameter(name="x", default=1),), body=(step("nothing"),))
    tasks = writer.body(0, most=5)
    return flow_of(*tasks, functions=(twice, none), variables=tuple(writer.variables), fail_fast=luck.random() < 0.2)
