"""How a prompt is put where there are only messages, and what JSON mode is.

Tasks do not know which protocol their endpoint speaks, and a fallback may lead to another one. So parameters mean the
same in all protocols: each sends those that it has a field for, under its own name, and leaves out those that only
others have. What is a parameter of none goes into the message, as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from runner.core.errors import AttemptError
from runner.core.plan import Mode
from runner.core.prompt import Answer, Prompt
from runner.orchestrators.connection import Connection

#: The model wrote something else than the JSON it was asked for; no fault of the endpoint.
ANSWER_NOT_JSON: Final = "ANSWER_NOT_JSON"

#: What some protocol has a field for.
FIELDS: Final = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "max_completion_tokens",
        "max_tokens",
        "presence_penalty",
        "reasoning_effort",
        "response_format",
        "seed",
        "stop",
        "stop_sequences",
        "system",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_k",
        "top_p",
        "user",
    }
)

_OBJECT: Final = "json_object"
_SCHEMA: Final = "json_schema"
_FENCE: Final = "```"


def model_of(prompt: Prompt, connection: Connection) -> str:
    """Raises AttemptError: INVALID_PARAMETERS if neither task nor endpoint names a model."""
    if model := prompt.model or connection.settings.model:
        return model
    message = (
        f"parameter `model` is missing, and orchestrator `{connection.name}` has no default"
        f" (setting `orchestrator.endpoints[{connection.name}].model`)"
    )
    raise AttemptError("INVALID_PARAMETERS", message, retryable=False)


def fields(prompt: Prompt, names: Mapping[str, str]) -> dict[str, Any]:
    """The parameters that a protocol has a field for: `names` are its own, by ours. Its own name wins."""
    given = {ours: theirs for ours, theirs in names.items() if ours in prompt.parameters}
    foreign = {theirs: prompt.parameters[ours] for ours, theirs in given.items() if ours != theirs}
    return {**foreign, **{ours: prompt.parameters[ours] for ours, theirs in given.items() if ours == theirs}}


def message(prompt: Prompt) -> str:
    """The text, and the parameters that no protocol knows."""
    rest = {name: value for name, value in prompt.parameters.items() if name not in FIELDS}
    if not rest:
        return prompt.text
    return f"{prompt.text}\n\nParameters:\n{msgspec.json.encode(rest).decode()}"


def system(prompt: Prompt) -> str:
    """The task's own system message, then what the protocols have no field for."""
    lines = [str(prompt.parameters["system"])] if prompt.parameters.get("system") else []
    if prompt.persona:
        lines.append(f"Persona: {prompt.persona}.")
    if prompt.mode is not Mode.NORMAL:
        lines.append(f"Mode: {prompt.mode.value}.")
    if prompt.task_type != "ai_prompt":
        lines.append(f"Task: {prompt.task_type}.")
    return "\n".join(lines)


def json_in_words(prompt: Prompt) -> str:
    """What `response_format` asks for, for a protocol without such a field; empty if it asks for nothing."""
    kind = _json_kind(prompt)
    if kind == _SCHEMA:
        schema = msgspec.json.encode(prompt.parameters["response_format"].get(_SCHEMA)).decode()
        return f"Answer with JSON alone, without any other text, of this schema: {schema}"
    return "Answer with one JSON object alone, without any other text." if kind else ""


def in_json(answer: Answer, prompt: Prompt, name: str) -> Answer:
    """The answer of orchestrator `name`, with the value of its text as `json` where `response_format` asks for JSON.

    A fence around the text is read over. That the value is of the schema is the endpoint's promise, and not checked.
    Raises AttemptError: ANSWER_NOT_JSON, retryable, with what the answer cost.
    """
    kind = _json_kind(prompt)
    if not kind:
        return answer
    try:
        value = msgspec.json.decode(_without_fence(answer.text))
    except (ValueError, RecursionError) as error:
        raise _no_json(answer, name, f"that is no JSON ({error})") from error
    if kind == _OBJECT and not isinstance(value, dict):
        raise _no_json(answer, name, "that is no JSON object")
    return msgspec.structs.replace(answer, metadata={**answer.metadata, "json": value})


def _json_kind(prompt: Prompt) -> str:
    asked = prompt.parameters.get("response_format")
    kind = asked.get("type") if isinstance(asked, Mapping) else None
    return kind if kind in {_OBJECT, _SCHEMA} else ""


def _without_fence(text: str) -> str:
    text = text.strip()
    if text.startswith(_FENCE) and text.endswith(_FENCE):
        return text.removesuffix(_FENCE).partition("\n")[2]
    return text


def _no_json(answer: Answer, name: str, what: str) -> AttemptError:
    told = f"orchestrator `{name}` was asked for JSON (`response_format`) and gave a text {what}"
    if answer.metadata.get("finish_reason") == "length":
        told += "; it was cut at its length: raise `max_tokens`"
    return AttemptError(
        ANSWER_NOT_JSON, told, retryable=True, endpoint=answer.endpoint, model=answer.model, usage=answer.usage
    )
