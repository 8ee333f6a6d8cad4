"""Handlers tell what they do and which parameters they take."""

from __future__ import annotations

import enum
from typing import Annotated, Any, Literal

import msgspec
import pytest

from runner.handlers.documentation import document, documents
from runner.handlers.registry import FALLBACK, open_handlers
from runner.ports import Attempt, Outcome


class Loudness(enum.StrEnum):
    """How loud."""

    LOUD = "loud"
    LOUDER = "louder"


class Voice(msgspec.Struct, frozen=True, kw_only=True):
    """What several handlers have."""

    #: How loud
    #: it is.
    loudness: Loudness = Loudness.LOUD
    pitch: Annotated[float, msgspec.Meta(ge=1, le=10_000, description="In hertz.")] | None = None


class ShoutParameters(Voice, frozen=True, kw_only=True, rename={"to": "toWhom"}):
    """What to shout."""

    text: Annotated[str, msgspec.Meta(description="What to say.")]
    times: Annotated[int, msgspec.Meta(gt=0)] = 1
    to: list[str | int] = []
    where: dict[str, Any] = {}
    how: Literal["a", "b"] | None = None
    anything: Any = msgspec.UNSET
    places: tuple[float | int, ...] = ()
    echo: bool = False


class Shout:
    """Says it in capitals.

    And more.
    """

    parameters = ShoutParameters

    async def run(self, attempt: Attempt) -> Outcome:
        return Outcome()


class Silent:
    async def run(self, attempt: Attempt) -> Outcome:
        return Outcome()


def test_types_defaults_and_meanings_come_from_the_struct_and_those_it_extends() -> None:
    told = document(Shout(), ["shout"], "shouting")
    assert told.about == "Says it in capitals."
    assert (told.task_types, told.takes_others, told.package) == (("shout",), False, "shouting")
    assert told.parameters is not None
    assert {each.name: (each.type, each.required, each.default, each.meaning) for each in told.parameters} == {
        "loudness": ("`loud` or `louder`", False, "loud", "How loud it is."),
        "pitch": ("number, at least 1, at most 10,000", False, msgspec.UNSET, "In hertz."),
        "text": ("text", True, msgspec.UNSET, "What to say."),
        "times": ("integer, more than 0", False, 1, ""),
        "toWhom": ("list of (text or integer)", False, [], ""),
        "where": ("object", False, {}, ""),
        "how": ("`a` or `b`", False, msgspec.UNSET, ""),
        "anything": ("any", False, msgspec.UNSET, ""),
        "places": ("list of number", False, (), ""),
        "echo": ("boolean", False, False, ""),
    }


@pytest.mark.parametrize("parameters", [5, dict, None])
def test_a_handler_need_not_tell(parameters: Any) -> None:
    silent: Any = Silent()
    silent.parameters = parameters
    told = document(silent, ["silent"])
    assert (told.about, told.parameters) == ("", None)


async def test_every_task_type_of_ours_is_told_once_and_every_parameter_explained() -> None:
    async with open_handlers({}) as handlers:
        told = documents(handlers, {})
    assert sorted(name for each in told for name in each.task_types) == sorted(handlers.keys() - {FALLBACK})
    assert [each.task_types for each in told if each.takes_others] == [("ai_prompt",)]
    for each in told:
        assert each.about, each.task_types
        for parameter in each.parameters or ():
            assert parameter.meaning, (each.task_types, parameter.name)


async def test_those_of_ours_that_take_parameters_declare_them() -> None:
    async with open_handlers({}) as handlers:
        told = {name: each.parameters for each in documents(handlers, {}) for name in each.task_types}
    for name in ("ai_prompt", "http_request", "python", "delay", "data_processing", "manual_trigger"):
        assert told[name], name
