"""How much a descriptor may ask of the decoder."""

from __future__ import annotations

import msgspec
import yaml

#: libyaml reads about 2 MB/s of the densest YAML; PyYAML's own parser is some thirty times slower.
_YAML_BYTES = 1 << 20 if yaml.__with_libyaml__ else 1 << 16

#: The walks over a descriptor recurse, so a greater `max_depth` counts as this.
DEEPEST = 200


class DescriptorLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a descriptor may measure. The finding that tells of a limit names it as `descriptor.<field>`."""

    #: Bytes of any descriptor, and of a YAML one after its aliases are followed.
    max_bytes: int = 4 << 20
    #: Bytes of a YAML descriptor, whose parser is slower.
    max_yaml_bytes: int = _YAML_BYTES
    #: Bytes of a TOML descriptor, whose parser is slower.
    max_toml_bytes: int = 1 << 20
    max_tasks: int = 10_000
    #: Of all tasks together.
    max_dependencies: int = 200_000
    #: `${…}` in all tasks together.
    max_references: int = 20_000
    #: Characters of them together: a path of JMESPath is compiled, which takes some microseconds a character.
    max_reference_characters: int = 256 * 1024
    #: Containers inside containers, the file itself being the first; at most 200.
    max_depth: int = 64
    max_yaml_aliases: int = 1_000
    #: Characters of one text.
    max_string: int = 1 << 20
    #: Characters of an id; ids are repeated in every event.
    max_id: int = 256
    #: Characters of a title, and of other texts that lists and events repeat: version, persona, language, task type.
    max_title: int = 1_000
    #: Errors told in one answer; as many warnings.
    max_findings: int = 100


def too_many_references(limits: DescriptorLimits) -> str:
    """A sentence."""
    return (
        f"There are more references than settings `descriptor.max_references` ({limits.max_references}) and"
        f" `descriptor.max_reference_characters` ({limits.max_reference_characters}) allow."
    )
