from __future__ import annotations

from typing import Any

import pytest

from tests.loops import GRPC_BACKEND


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return GRPC_BACKEND
