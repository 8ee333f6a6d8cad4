from __future__ import annotations

import pytest
from aiohttp import web

from runner.orchestrators.session import open_session
from runner.orchestrators.settings import EndpointSettings
from tests.orchestrators.calling import speaker
from tests.orchestrators.forms import FORMS, Form
from tests.orchestrators.hostile import Pieces, prompt


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
async def test_calls_one_after_the_other_go_over_one_connection(form: Form) -> None:
    """Also where the answer is complete before its body's last byte."""
    connections: set[object] = set()

    async def answer(request: web.Request) -> web.Response:
        connections.add(request.transport)
        await request.read()
        return web.Response(body=form.body() + b"\n\n", content_type=form.content_type.decode())

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with speaker(f"http://127.0.0.1:{runner.addresses[0][1]}", form.protocol) as spoken:
            for _ in range(4):
                assert (await spoken.ask(prompt(), Pieces())).text == "hi"
                await spoken.health()
    finally:
        await runner.cleanup()
    assert len(connections) == 1


async def test_a_session_keeps_no_cookies_and_asks_only_for_what_is_unpacked_in_pieces() -> None:
    async with open_session(EndpointSettings(url="http://127.0.0.1:1")) as session:
        assert session.headers["Accept-Encoding"] == "gzip, deflate"
        session.cookie_jar.update_cookies({"a": "b"})
        assert not list(session.cookie_jar)
