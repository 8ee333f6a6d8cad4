from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The HTTP client knows asyncio alone."""
    return "asyncio"
