from __future__ import annotations

from typing import Any

import pytest
import trio.testing


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Time that jumps to the next wake-up as soon as nobody has anything to do: hours pass in milliseconds."""
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}
