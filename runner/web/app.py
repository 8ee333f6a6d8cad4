"""What the HTTP port answers: metrics, liveness, readiness."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from litestar import Litestar, Request, Response, get
from litestar.exceptions import HTTPException
from litestar.types import Scope

from runner import __version__
from runner.web.readiness import Readiness

_log = logging.getLogger(__name__)

#: Metrics for an Accept header: the text, and its content type.
Exposition = Callable[[str], tuple[bytes, str]]


def create_app(*, exposition: Exposition, readiness: Readiness) -> Litestar:
    """The application. It has no documentation pages; errors are answered in JSON and told in full only in the log."""

    @get("/", sync_to_thread=False)
    def index() -> dict[str, Any]:
        return {
            "service": "alt-runner",
            "version": __version__,
            "links": {"metrics": "/metrics", "alive": "/healthz", "ready": "/readyz"},
        }

    @get("/metrics", sync_to_thread=False)
    def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
        content, content_type = exposition(request.headers.get("accept", ""))
        return Response(content, headers={"content-type": content_type})

    @get("/healthz", sync_to_thread=False)
    def healthz() -> dict[str, str]:
        # Answered by the event loop that runs the jobs: a loop that hangs does not answer.
        return {"status": "alive"}

    @get("/readyz")
    async def readyz() -> Response[dict[str, Any]]:
        checks = await readiness()
        ready = all(check.ok for check in checks)
        body = {"status": "ready" if ready else "not_ready", "checks": checks}
        return Response(body, status_code=200 if ready else 503, headers={"cache-control": "no-store"})

    return Litestar(
        [index, metrics, healthz, readyz],
        after_exception=[_tell],
        openapi_config=None,
        logging_config=None,
        debug=False,
    )


def _tell(error: Exception, scope: Scope) -> None:
    if not isinstance(error, HTTPException):
        _log.error("request_failed %s", scope["path"], exc_info=error)
