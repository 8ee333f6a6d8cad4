"""Descriptors as they come in: decoded, and remembered decoded.

Services submit the same descriptor again and again, with other inputs. Decoding is the dearest part of a submission,
and all of it depends on the descriptor alone.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from threading import Lock
from typing import Final

import msgspec

from runner.core import references
from runner.core.alt import DescriptorLimits, Kinds, decode
from runner.core.alt.parameters import NO_KINDS
from runner.core.findings import Finding
from runner.core.plan import Plan

#: A descriptor is remembered if it is no larger than this part of all that are.
_LARGEST: Final = 1 / 16


class Understood(msgspec.Struct, frozen=True):
    """What a descriptor says, whoever submits it."""

    plan: Plan
    #: The plan as MessagePack.
    packed: bytes
    #: SHA-256 of the descriptor, in hexadecimal.
    sha256: str
    warnings: tuple[Finding, ...]
    #: Inputs that it refers to.
    inputs: frozenset[str]


class Descriptors:
    """Decodes descriptors on any thread. The least recently used are forgotten first."""

    def __init__(self, limits: DescriptorLimits, kinds: Kinds = NO_KINDS, *, remembered_bytes: int) -> None:
        """`remembered_bytes`: of all descriptors that are remembered, as they were sent; 0: none are."""
        self._limits = limits
        self._kinds = kinds
        self._most_bytes = remembered_bytes
        self._bytes = 0
        self._remembered: OrderedDict[tuple[bytes, str], Understood] = OrderedDict()
        self._lock = Lock()

    def resize(self, remembered_bytes: int) -> None:
        """Remember so many from now on."""
        with self._lock:
            self._most_bytes = remembered_bytes
            self._forget()

    def remembers(self, data: bytes, content_type: str) -> bool:
        """Whether `read` has nothing to decode."""
        return (data, content_type) in self._remembered

    def read(self, data: bytes, content_type: str) -> Understood:
        """Decode a descriptor, in the format of its content type, or as it looks.

        Raises InvalidDescriptor: with all that is wrong with it. What is wrong is not remembered.
        """
        key = (data, content_type)
        with self._lock:
            found = self._remembered.get(key)
            if found is not None:
                self._remembered.move_to_end(key)
                return found
        understood = self._decoded(data, content_type)
        if _size(key, understood) <= self._most_bytes * _LARGEST:
            self._remember(key, understood)
        return understood

    def _decoded(self, data: bytes, content_type: str) -> Understood:
        decoded = decode(data, content_type=content_type, limits=self._limits, kinds=self._kinds)
        packed = decoded.packed or msgspec.msgpack.encode(decoded.plan)
        # MessagePack holds texts as they are: without the word no text refers to an input. Saves a walk over all tasks.
        refers = references.Root.INPUTS.value.encode() in packed
        inputs = references.required_inputs(decoded.plan) if refers else ()
        return Understood(decoded.plan, packed, hashlib.sha256(data).hexdigest(), decoded.warnings, frozenset(inputs))

    def _remember(self, key: tuple[bytes, str], understood: Understood) -> None:
        with self._lock:
            # Another thread may have decoded it meanwhile.
            if key not in self._remembered:
                self._bytes += _size(key, understood)
                self._remembered[key] = understood
            self._forget()

    def _forget(self) -> None:
        while self._bytes > self._most_bytes:
            self._bytes -= _size(*self._remembered.popitem(last=False))


def _size(key: tuple[bytes, str], understood: Understood) -> int:
    """Bytes as they were sent, or those of the plan where aliases of YAML made it larger."""
    data, content_type = key
    return max(len(data), len(understood.packed)) + len(content_type)
