"""What the HTTP port answers: metrics, liveness, readiness."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from litestar import Litestar, Request, Response, get

from runner import __version__
from runner.web.readiness import Readiness

#: Metrics for an Accept header: the text, and its content type.
Exposition = Callable[[str], tuple[bytes, str]]


def create_app(*, exposition: Exposition, readiness: Readiness) -> Litestar:
    """The application. It writes no log, opens no documentation pages, and answers errors in JSON without details."""

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

    return Litestar([index, metrics, healthz, readyz], openapi_config=None, logging_config=None, debug=False)
