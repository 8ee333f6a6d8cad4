"""Task kind `ai_prompt`, and every word that no other handler claims: ask an AI orchestrator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

import msgspec

from runner.core.alt import ParameterProblem
from runner.core.alt.report import written
from runner.core.answers import AnswerCachePolicy
from runner.core.errors import AttemptError
from runner.core.events import Json
from runner.core.plan import TaskPlan
from runner.core.prompt import Answer, OnUsage, Prompt
from runner.handlers.earlier import EarlierAnswers
from runner.handlers.fallback import Cached, Fallback, OnOpen, Recalled, Trial, problems
from runner.handlers.parameters import invalid, problems_of, read
from runner.ports import Attempt, Bulkhead, Orchestrator, Outcome

#: Ours; everything else goes to the orchestrator.
_OWN: Final = frozenset({"prompt", "model", "endpoint", "task_type", "on_open", "fallback", "fallback_after_stream"})

#: A streamed answer is not finished before it ends, whatever its length.
_NEARLY: Final = 0.99


class PromptParameters(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters that are not just passed on."""

    #: What to ask; the task's description where it is missing. What is no text is asked as JSON.
    prompt: Any = msgspec.UNSET
    #: A model's name, an alias or a label, such as `fast`; the endpoint's own where it is missing.
    model: str | None = None
    #: A configured endpoint or a group of them; where it is missing the first group, or one that serves the model.
    endpoint: str | None = None
    #: Also the measure of progress while the answer streams.
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    #: While the endpoint's circuit breaker is open: wait, fail, or use `fallback`; `fallback` where there is one.
    on_open: OnOpen | None = None
    #: What stands in for the endpoint, tried in order: when its breaker is open, or the last attempt failed.
    fallback: tuple[Fallback, ...] = ()
    #: Whether something may stand in although watchers have seen the beginning of the answer that failed.
    fallback_after_stream: bool = False


class AskOrchestrator:
    """A Handler; its output is `{"text": …, "model": …}` and what else the endpoint told, like `finish_reason`."""

    parameters: Final = PromptParameters
    #: To the orchestrator.
    passes_parameters_on: Final = True

    def __init__(self, orchestrators: Mapping[str, Orchestrator], earlier: EarlierAnswers | None = None) -> None:
        """Without `earlier`, no answer is kept."""
        self._orchestrators = orchestrators
        self.earlier = earlier or EarlierAnswers(AnswerCachePolicy())

    def check(self, parameters: Mapping[str, Any]) -> Iterator[ParameterProblem]:
        """Whether its endpoints are configured; where none is, they may be by the time it runs. And its fallbacks."""
        name = parameters.get("endpoint")
        if isinstance(name, str) and self._orchestrators:
            yield from problems_of("endpoint", lambda: self.chosen(name), by_settings=True)
        yield from problems(parameters, self._not_known, longest=self.earlier.policy.max_age_seconds)

    async def run(self, attempt: Attempt) -> Outcome:
        """Ask; the text is streamed as it arrives, where the protocol does that.

        Raises AttemptError: NO_ORCHESTRATOR if none is configured; INVALID_PARAMETERS; BREAKER_OPEN with
        `on_open: fail`; else as `Orchestrator.ask` and `Attempt.reserve_tokens`.
        """
        parameters = read(attempt.parameters, PromptParameters)
        for problem in problems(attempt.parameters, self._not_known, longest=self.earlier.policy.max_age_seconds):
            raise invalid(written((problem.name, *problem.inside)), f"is wrong: {problem.message}")
        return await _Asking(self, attempt, parameters).outcome()

    def bulkhead(self, task: TaskPlan) -> Bulkhead | None:
        """The room of the task's endpoint; None where a reference names it, or it bounds nothing."""
        name = task.parameters.get("endpoint")
        if name is None:
            name = next(iter(self._orchestrators), None)
        chosen = self._orchestrators.get(name) if isinstance(name, str) else None
        return getattr(chosen, "bulkhead", None)

    def chosen(self, name: str | None) -> tuple[str, Orchestrator]:
        """The orchestrator of that name; of none, the first. Raises AttemptError."""
        if not self._orchestrators:
            message = "no AI orchestrator is configured; set `orchestrator.endpoints`"
            raise AttemptError("NO_ORCHESTRATOR", message, retryable=False)
        if name is None:
            return next(iter(self._orchestrators.items()))
        if name not in self._orchestrators:
            known = ", ".join(f"`{known}`" for known in self._orchestrators)
            raise invalid("endpoint", f"names an orchestrator that is not configured; there is {known}")
        return name, self._orchestrators[name]

    def _not_known(self, name: str) -> Iterator[ParameterProblem]:
        if self._orchestrators:
            yield from problems_of("endpoint", lambda: self.chosen(name), by_settings=True)


class _Asking:
    """One attempt: what is asked, and of whom."""

    def __init__(self, handler: AskOrchestrator, attempt: Attempt, parameters: PromptParameters) -> None:
        self._handler = handler
        self._attempt = attempt
        self._parameters = parameters
        self._telling = _Telling(attempt, parameters.max_tokens)
        self._endpoint, _ = handler.chosen(parameters.endpoint)
        self._prompt = _prompt(attempt, parameters)
        #: Whether its answers are for others, too.
        self._keeps = any(fallback.cached is not None for fallback in parameters.fallback)

    async def outcome(self) -> Outcome:
        fallbacks = self._parameters.fallback
        trial = Trial(
            fallbacks,
            endpoint=self._endpoint,
            on_open=self._parameters.on_open or (OnOpen.FALLBACK if fallbacks else OnOpen.PARK),
            last=self._attempt.retries_left == 0,
            ask=self._ask,
            recall=self._recall,
            may_follow=lambda: self._parameters.fallback_after_stream or not self._telling.streamed,
            remaining=self._attempt.remaining,
            consumed=self._attempt.consumed,
        )
        outcome = await trial.outcome()
        if self._keeps and outcome.fallback is None:
            await self._handler.earlier.keep(self._attempt, self._request(), outcome)
        return outcome

    async def _ask(self, position: int, seconds: float, used: OnUsage) -> Outcome:
        """Every call goes through here: that of the task's own choice, and those of its fallbacks."""
        prompt, endpoint = self._to(position, seconds, used)
        _, orchestrator = self._handler.chosen(endpoint)
        await self._reserve()
        # Texts of two answers would stand in one stream: what follows a piece of another one is only counted.
        tell = self._telling.count if self._telling.streamed else self._telling.text
        return _outcome(await orchestrator.ask(prompt, tell))

    async def _reserve(self) -> None:
        """Take the tokens of one call. All have the same question."""
        await self._attempt.reserve_tokens(_sent(self._prompt), answer=self._parameters.max_tokens)

    def _to(self, position: int, seconds: float, used: OnUsage) -> tuple[Prompt, str | None]:
        """What a choice is asked, and who it is."""
        named = self._parameters.endpoint
        prompt = msgspec.structs.replace(self._prompt, timeout=seconds, used=used, reserve=self._reserve)
        if position:
            fallback = self._parameters.fallback[position - 1]
            named = named if fallback.endpoint is None else fallback.endpoint
            model = self._parameters.model if fallback.model is None else fallback.model
            prompt = msgspec.structs.replace(
                prompt,
                model=model or None,
                # Not under the key of the first: whoever knows that one would refuse another request.
                request_id=f"{prompt.request_id}:fallback-{position}",
                # What failed elsewhere is no repetition here: it must not use up the retries of one that is well.
                retry=prompt.retry and named in (None, self._endpoint),
            )
        return msgspec.structs.replace(prompt, endpoint=named or ""), named

    async def _recall(self, cached: Cached) -> Recalled | None:
        return await self._handler.earlier.recall(self._attempt, self._request(), cached)

    def _request(self) -> Json:
        """All that an answer of the first choice depends on."""
        prompt = self._prompt
        return [
            self._endpoint,
            prompt.model,
            prompt.task_type,
            prompt.mode.value,
            prompt.persona,
            prompt.text,
            dict(prompt.parameters),
        ]


class _Telling:
    """Passes streamed text on, and counts its pieces as tokens, which they nearly are."""

    def __init__(self, attempt: Attempt, max_tokens: int | None) -> None:
        self._attempt = attempt
        self._max_tokens = max_tokens
        self._pieces = 0
        #: Whether watchers have seen some text.
        self.streamed = False

    async def text(self, piece: str) -> None:
        self.streamed = True
        await self.count(piece)
        await self._attempt.output(piece)

    async def count(self, _piece: str) -> None:
        self._pieces += 1
        if self._max_tokens is not None:
            fraction = min(_NEARLY, self._pieces / self._max_tokens)
            self._attempt.progress(fraction, completed=min(self._pieces, self._max_tokens), total=self._max_tokens)


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
