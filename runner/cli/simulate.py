"""`alt-runner simulate-orchestrator`: an AI orchestrator without AI, for demos, tests and load."""

from __future__ import annotations

import signal
from typing import Annotated, Any

import typer

from runner.cli import options, output
from runner.cli.exits import Unusable


def simulate_orchestrator(
    *,
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="0 takes a free one.")] = 0,
    seed: Annotated[int, typer.Option("--seed", help="The same seed and prompt give the same answer.")] = 0,
    latency: Annotated[float, typer.Option("--latency", metavar="MS", help="Before an answer begins.")] = 0.0,
    tokens_per_second: Annotated[float, typer.Option("--tokens-per-second", help="0: all at once.")] = 0.0,
    answer_tokens: Annotated[int, typer.Option("--answer-tokens", help="Length of an answer.")] = 24,
    error_rate: Annotated[float, typer.Option("--error-rate", help="Share of calls that fail, 0 to 1.")] = 0.0,
    rate_limit: Annotated[float, typer.Option("--rate-limit", help="Calls a second; 0: no limit.")] = 0.0,
    max_concurrent: Annotated[int, typer.Option("--max-concurrent", help="Calls at a time; 0: no limit.")] = 0,
    models: Annotated[
        list[str] | None, typer.Option("--model", help="A model that it has; may be repeated. None: any.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Simulate an AI orchestrator.

    Speaks altlas, openai and anthropic, streamed too, until Ctrl-C.
    Its behaviour can be changed while it runs, over HTTP: GET, PUT or PATCH /control.
    """
    behaviour = {
        "latency_ms": latency,
        "tokens_per_second": tokens_per_second,
        "answer_tokens": answer_tokens,
        "error_rate": error_rate,
        "rate_limit_per_second": rate_limit,
        "max_concurrent_calls": max_concurrent,
        "models": models or [],
    }
    options.run(_simulate(port, seed, behaviour, as_json=as_json))


async def _simulate(port: int, seed: int, behaviour: dict[str, Any], *, as_json: bool) -> None:
    import asyncio

    import msgspec

    from runner.orchestrators.simulated import SimulatorSettings, serve_simulated

    try:
        settings = msgspec.convert({"port": port, "seed": seed, "behaviour": behaviour}, SimulatorSettings)
    except msgspec.ValidationError as error:
        raise Unusable(f"the simulated orchestrator cannot behave like that: {error}") from error
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        async with serve_simulated(settings) as simulator:
            _tell(simulator.url, as_json=as_json)
            await stop.wait()
    except OSError as error:
        raise Unusable(f"cannot listen on port {port}: {error.strerror or error}; choose another --port") from error


def _tell(url: str, *, as_json: bool) -> None:
    if as_json:
        output.json_line({"url": url, "control": f"{url}/control"})
        return
    output.line(url)
    output.notice("a simulated orchestrator: protocols altlas, openai and anthropic, nothing it says is real")
    output.notice(f"  use it      alt-runner serve --orchestrator {url}")
    output.notice(f"  break it    curl -X PATCH {url}/control -d '" + '{"error_rate": 0.5, "latency_ms": 800}' + "'")
    output.notice(f"  count it    curl {url}/control/calls")
