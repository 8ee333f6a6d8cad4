"""The inputs: each is made of a seed and a number alone, so that it can be made again."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final

import msgspec

from runner.core.alt import DescriptorLimits
from runner.core.alt.conversion import convert
from runner.core.alt.media import Format
from scripts.fuzzing import descriptors, flows, texts
from scripts.fuzzing.checks import Case
from scripts.fuzzing.descriptors import happens

_EXAMPLES: Final = Path(__file__).parents[2] / "examples"
_CONTENT_TYPES: Final = (
    "", "", "", "application/json", "application/yaml", "application/toml", "application/msgpack", "text/yaml",
    "application/x+json", "application/json; charset=latin-1", "text/plain",
)  # fmt: skip
_LOW: Final = (1, 2, 3, 4, 5, 6, 8, 12, 64, 300)


def case(seed: int, number: int) -> Case:
    """Input `number` of a run with this seed."""
    random = Random(f"{seed}:{number}")  # noqa: S311 -- not for secrets
    data, content_type = random.choices(_MAKERS, _SHARES)[0](random)
    if happens(random, 0.3):
        content_type = ""
    elif happens(random, 0.05):
        content_type = random.choice(_CONTENT_TYPES)
    return Case(data, content_type, _limits(random) if happens(random, 0.15) else DescriptorLimits())


def _limits(random: Random) -> DescriptorLimits:
    if happens(random, 0.3):
        return DescriptorLimits(max_depth=random.randint(3, 9))
    names = random.sample(DescriptorLimits.__struct_fields__, random.choice((1, 1, 2)))
    return msgspec.structs.replace(DescriptorLimits(), **{name: random.choice(_LOW) for name in names})


@functools.cache
def _examples() -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for path in sorted(_EXAMPLES.iterdir()) if path.is_file())


def _noise(random: Random) -> tuple[bytes, str]:
    return random.randbytes(random.randint(0, 60)), random.choice(_CONTENT_TYPES)


def _punctuation(random: Random) -> tuple[bytes, str]:
    return texts.punctuation(random), random.choice(_CONTENT_TYPES)


def _sound(random: Random) -> tuple[bytes, str]:
    return texts.written(random, descriptors.descriptor(random))


def _wronged(random: Random) -> tuple[bytes, str]:
    raw = descriptors.descriptor(random)
    for _ in range(random.choice((1, 1, 2, 4))):
        raw = descriptors.wronged(random, raw)
    return texts.written(random, raw)


def _sound_flow(random: Random) -> tuple[bytes, str]:
    return texts.written(random, flows.flow(random))


def _wronged_flow(random: Random) -> tuple[bytes, str]:
    raw = json.loads(_flow_example()) if happens(random, 0.1) else flows.flow(random)
    for _ in range(random.choice((1, 1, 2, 4))):
        raw = descriptors.wronged(random, raw)
    return texts.written(random, raw)


@functools.cache
def _flow_example() -> bytes:
    return convert((_EXAMPLES / "triage.alt.yaml").read_bytes(), Format.JSON).content


def _tangle(random: Random) -> tuple[bytes, str]:
    return texts.written(random, flows.tangle(random))


@functools.cache
def _pool() -> tuple[tuple[bytes, str], ...]:
    """Sound ones, written: making a new one for each input takes longer than reading it."""
    random = Random(0)  # noqa: S311 -- not for secrets
    return (*(_sound(random) for _ in range(400)), *(_sound_flow(random) for _ in range(200)))


def _damaged(random: Random) -> tuple[bytes, str]:
    data, content_type = random.choice(_pool()) if happens(random, 0.7) else _wronged(random)
    other, _ = random.choice(_pool())
    return texts.damaged(random, data, other), content_type


def _damaged_excess(random: Random) -> tuple[bytes, str]:
    data, content_type = _excess(random)
    other, _ = random.choice(_pool())
    return texts.damaged(random, data, other), content_type


def _damaged_example(random: Random) -> tuple[bytes, str]:
    data, other = random.choice(_examples()), random.choice(_examples())
    return texts.damaged(random, data, other), ""


def _excess(random: Random) -> tuple[bytes, str]:
    return texts.excess(random)


def _edge(random: Random) -> tuple[bytes, str]:
    return texts.edge(random)


def _graph(random: Random) -> tuple[bytes, str]:
    return texts.written(random, descriptors.graph(random))


_MAKERS: Final[tuple[Callable[[Random], tuple[bytes, str]], ...]] = (
    _noise, _punctuation, _sound, _wronged, _damaged, _damaged_excess, _damaged_example, _excess, _edge, _graph,
    _sound_flow, _wronged_flow, _tangle,
)  # fmt: skip
#: Of a thousand. Large inputs are rare, so that a million takes minutes.
_SHARES: Final = (90, 90, 100, 150, 270, 15, 15, 15, 90, 5, 60, 90, 10)
