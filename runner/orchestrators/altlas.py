"""Protocol `altlas`: one JSON question, one JSON answer, nothing streamed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec

from runner.core.events import Usage
from runner.core.plan import Mode
from runner.core.prompt import Answer, Prompt
from runner.orchestrators import asking
from runner.orchestrators.connection import Connection, Name, Tokens
from runner.orchestrators.model_lists import altlas_models

_Milliseconds = Annotated[float, msgspec.Meta(ge=0)]


class _Generated(msgspec.Struct, frozen=True):
    text: str
    model_used: Name | None = None
    tokens_used: Tokens | None = None
    processing_time_ms: _Milliseconds | None = None


class Altlas:
    """An Orchestrator that speaks `altlas`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def ask(self, prompt: Prompt, on_text: Callable[[str], Awaitable[None]]) -> Answer:
        """Ask. The parameters travel beside the prompt, with the task type and the model among them.

        Raises AttemptError: as `Connection.post`, `Connection.decode` and `asking.in_json`.
        """
        async with self._connection.post("api/v1/generate", _question(prompt, self._model(prompt)), prompt) as incoming:
            body = await incoming.whole()
        generated = self._connection.decode(body, _Generated)
        metadata = {} if generated.processing_time_ms is None else {"processing_time_ms": generated.processing_time_ms}
        answer = Answer(
            text=generated.text,
            model=generated.model_used or self._model(prompt),
            endpoint=self._connection.name,
            usage=Usage(calls=1, total_tokens=generated.tokens_used or 0),
            metadata=metadata,
        )
        return asking.in_json(answer, prompt, self._connection.name)

    async def health(self) -> None:
        await self._connection.check("health")

    async def models(self) -> tuple[str, ...]:
        return await altlas_models(self._connection, "api/v1/models")

    def _model(self, prompt: Prompt) -> str:
        return prompt.model or self._connection.settings.model


def _question(prompt: Prompt, model: str) -> dict[str, Any]:
    parameters = {**prompt.parameters, "task_type": prompt.task_type}
    if model:
        parameters["model"] = model
    question: dict[str, Any] = {"request_id": prompt.request_id, "prompt": prompt.text, "parameters": parameters}
    if prompt.mode is not Mode.NORMAL:
        question["mode"] = prompt.mode.value
    if prompt.persona:
        question["persona"] = prompt.persona
    return question
