"""A closed loop lets gRPC's last operations pass, and nobody else's."""

from __future__ import annotations

from importlib import import_module

import pytest

from tests.loops import GrpcLoop


@pytest.fixture
def closed() -> GrpcLoop:
    loop = GrpcLoop()
    loop.close()
    return loop


def test_what_grpc_says_too_late_is_passed_over(closed: GrpcLoop) -> None:
    closed.call_soon_threadsafe(import_module("grpc._cython.cygrpc")._handle_callback_wrapper, None, 1)


def test_a_thread_of_ours_that_is_late_is_told(closed: GrpcLoop) -> None:
    with pytest.raises(RuntimeError, match="closed"):
        closed.call_soon_threadsafe(print)
