"""Waiting for a ledger that is away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

import anyio
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from runner.core.errors import LedgerUnavailable

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


async def patiently(
    verb: Callable[Arguments, Awaitable[Answer]], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Answer:
    """Call it again for as long as the ledger is away: results are held, not lost. Only cancellation ends the wait."""
    retrying = AsyncRetrying(
        retry=retry_if_exception_type(LedgerUnavailable),
        wait=wait_random_exponential(multiplier=0.1, max=5),
        sleep=anyio.sleep,
    )
    return await retrying(verb, *args, **kwargs)
