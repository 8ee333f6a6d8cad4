"""Task kind `ai_prompt`, and every word that no other handler claims: ask an AI orchestrator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

import msgspec

from runner.core.alt import ParameterProblem
from runner.core.errors import AttemptError
from runner.core.plan import TaskPlan
from runner.handlers.parameters import invalid, problems_of, read
from runner.ports import Answer, Attempt, Bulkhead, Orchestrator, Outcome, Prompt

#: Ours; everything else goes to the orchestrator.
_OWN: Final = frozenset({"prompt", "model", "endpoint", "task_type"})

#: A streamed answer is not finished before it ends, whatever its length.
_NEARLY: Final = 0.99


class PromptParameters(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters that are not just passed on."""

    #: What to ask; the task's description where it is missing. What is no text is asked as JSON.
    prompt: Any = msgspec.UNSET
    #: Instead of the endpoint's own.
    model: str | None = None
    #: Which configured orchestrator; the first where it is missing.
    endpoint: str | None = None
    #: Also the measure of progress while the answer streams.
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None


class AskOrchestrator:
    """A Handler; its output is `{"text": …, "model": …}` and what else the endpoint told, like `finish_reason`."""

    parameters: Final = PromptParameters
    #: To the orchestrator.
    passes_parameters_on: Final = True

    def __init__(self, orchestrators: Mapping[str, Orchestrator]) -> None:
        self._orchestrators = orchestrators

    def check(self, parameters: Mapping[str, Any]) -> Iterator[ParameterProblem]:
        """Whether its endpoint is configured; where none is, one may be by the time it runs."""
        name = parameters.get("endpoint")
        if isinstance(name, str) and self._orchestrators:
            yield from problems_of("endpoint", lambda: self._chosen(name), by_settings=True)

    async def run(self, attempt: Attempt) -> Outcome:
        """Ask; the text is streamed as it arrives, where the protocol does that.

        Raises AttemptError: NO_ORCHESTRATOR if none is configured; INVALID_PARAMETERS; else as `Orchestrator.ask` and
        `Attempt.reserve_tokens`.
        """
        parameters = read(attempt.parameters, PromptParameters)
        orchestrator = self._chosen(parameters.endpoint)
        telling = _Telling(attempt, parameters.max_tokens)
        prompt = _prompt(attempt, parameters)
        await attempt.reserve_tokens(_sent(prompt), answer=parameters.max_tokens)
        answer = await orchestrator.ask(prompt, telling.text)
        return _outcome(answer)

    def bulkhead(self, task: TaskPlan) -> Bulkhead | None:
        """The room of the task's endpoint; None where a reference names it, or it bounds nothing."""
        name = task.parameters.get("endpoint")
        if name is None:
            name = next(iter(self._orchestrators), None)
        chosen = self._orchestrators.get(name) if isinstance(name, str) else None
        return getattr(chosen, "bulkhead", None)

    def _chosen(self, name: str | None) -> Orchestrator:
        if not self._orchestrators:
            message = "no AI orchestrator is configured; set `orchestrator.endpoints`"
            raise AttemptError("NO_ORCHESTRATOR", message, retryable=False)
        if name is None:
            return next(iter(self._orchestrators.values()))
        if name not in self._orchestrators:
            known = ", ".join(f"`{known}`" for known in self._orchestrators)
            raise invalid("endpoint", f"names an orchestrator that is not configured; there is {known}")
        return self._orchestrators[name]


class _Telling:
    """Passes streamed text on, and counts its pieces as tokens, which they nearly are."""

    def __init__(self, attempt: Attempt, max_tokens: int | None) -> None:
        self._attempt = attempt
        self._max_tokens = max_tokens
        self._pieces = 0

    async def text(self, piece: str) -> None:
        self._pieces += 1
        if self._max_tokens is not None:
            fraction = min(_NEARLY, self._pieces / self._max_tokens)
            self._attempt.progress(fraction, completed=min(self._pieces, self._max_tokens), total=self._max_tokens)
        await self._attempt.output(piece)


def _prompt(attempt: Attempt, parameters: PromptParameters) -> Prompt:
    return Prompt(
        request_id=attempt.idempotency_key,
        text=_text(attempt, parameters.prompt),
        task_type=attempt.task.kind,
        mode=attempt.plan.mode,
        persona=attempt.plan.persona,
        model=parameters.model or None,
        parameters={name: value for name, value in attempt.parameters.items() if name not in _OWN},
        traceparent=attempt.traceparent,
        timeout=attempt.remaining(),
        job_id=attempt.job_id,
        retry=attempt.failures > 0,
    )


def _sent(prompt: Prompt) -> str:
    """What of a prompt costs tokens."""
    return "\n".join((prompt.text, *(value for value in prompt.parameters.values() if isinstance(value, str))))


def _text(attempt: Attempt, prompt: Any) -> str:
    if prompt is msgspec.UNSET:
        return attempt.task.description
    # A reference that stands alone keeps its type: asking about a whole object is meant, asking nothing is not.
    text = prompt if isinstance(prompt, str) else msgspec.json.encode(prompt).decode()
    if prompt is None or not text.strip():
        raise invalid("prompt", "is empty")
    return text


def _outcome(answer: Answer) -> Outcome:
    return Outcome(
        output={"text": answer.text, "model": answer.model, **answer.metadata},
        usage=answer.usage,
        endpoint=answer.endpoint,
        model=answer.model,
    )
