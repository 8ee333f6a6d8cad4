"""The words of the simulated orchestrator: what is asked of it, and how it says things, in each protocol. No I/O."""

from __future__ import annotations

from typing import Annotated, Any, Final, Protocol

import msgspec
from msgspec import Meta, Struct

_Length = Annotated[int, Meta(ge=1)]


class Asked(Struct, frozen=True, kw_only=True):
    """A call, whatever it was said in."""

    prompt: str
    model: str = ""
    max_tokens: int | None = None
    #: What names the call where the header `Idempotency-Key` does not.
    key: str = ""
    stream: bool = False
    include_usage: bool = False
    #: The text is to be JSON.
    in_json: bool = False


class Said(Struct, frozen=True, kw_only=True):
    """Its answer."""

    asked: Asked
    pieces: list[str]
    #: The model's name, which says that it is simulated.
    model: str
    #: When the call came, in the simulator's seconds.
    began: float
    #: Seconds since 1970.
    created: int
    #: The caller wanted it shorter than it would have been.
    cut_short: bool
    milliseconds: float = 0.0

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def prompt_tokens(self) -> int:
        return len(self.asked.prompt.split())


class Speech(Protocol):
    """One protocol. Methods that give bytes give what is sent as it is."""

    @property
    def path(self) -> str: ...

    @property
    def endless(self) -> bytes:
        """How an answer that is not streamed begins where it has no end."""

    def asked(self, body: bytes) -> Asked:
        """Raises msgspec.DecodeError, RecursionError: if it is no question."""

    def whole(self, said: Said) -> dict[str, Any]: ...

    def opening(self, said: Said) -> bytes: ...

    def piece(self, said: Said, text: str) -> bytes: ...

    def closing(self, said: Said) -> bytes: ...

    def refusal(self, message: str) -> dict[str, Any]: ...


# --------------------------------------------------------------------------------------------------------- altlas


class _Question(Struct):
    prompt: str
    request_id: str = ""
    parameters: dict[str, Any] = {}


class AltlasSpeech:
    """Never streams."""

    path: Final = "/api/v1/generate"
    endless: Final = b'{"text": "'

    def asked(self, body: bytes) -> Asked:
        question = msgspec.json.decode(body, type=_Question)
        model, length = question.parameters.get("model"), question.parameters.get("max_tokens")
        return Asked(
            prompt=question.prompt,
            model=model if isinstance(model, str) else "",
            max_tokens=length if isinstance(length, int) and length > 0 else None,
            key=question.request_id,
            in_json=_in_json(question.parameters.get("response_format")),
        )

    def whole(self, said: Said) -> dict[str, Any]:
        return {
            "text": said.text,
            "model_used": said.model,
            "tokens_used": said.prompt_tokens + len(said.pieces),
            "processing_time_ms": said.milliseconds,
        }

    def opening(self, said: Said) -> bytes:
        return b""

    def piece(self, said: Said, text: str) -> bytes:
        return b""

    def closing(self, said: Said) -> bytes:
        return b""

    def refusal(self, message: str) -> dict[str, Any]:
        return {"error": message}


# --------------------------------------------------------------------------------------------------------- openai


class _Message(Struct):
    role: str
    content: str


class _StreamOptions(Struct):
    include_usage: bool = False


class _Completion(Struct):
    messages: Annotated[list[_Message], Meta(min_length=1)]
    model: str
    stream: bool = False
    stream_options: _StreamOptions | None = None
    max_tokens: _Length | None = None
    response_format: Any = None


class OpenAISpeech:
    path: Final = "/v1/chat/completions"
    endless: Final = b'{"choices": [{"message": {"content": "'

    def asked(self, body: bytes) -> Asked:
        completion = msgspec.json.decode(body, type=_Completion)
        return Asked(
            prompt=completion.messages[-1].content,
            model=completion.model,
            max_tokens=completion.max_tokens,
            stream=completion.stream,
            include_usage=completion.stream_options is not None and completion.stream_options.include_usage,
            in_json=_in_json(completion.response_format),
        )

    def whole(self, said: Said) -> dict[str, Any]:
        message = {"role": "assistant", "content": said.text}
        choice = {"index": 0, "message": message, "finish_reason": _finish_reason(said)}
        return {**_envelope(said, "chat.completion", [choice]), **_usage(said)}

    def opening(self, said: Said) -> bytes:
        return b""

    def piece(self, said: Said, text: str) -> bytes:
        return _chunk(said, {"content": text}, None)

    def closing(self, said: Said) -> bytes:
        last = _chunk(said, {}, _finish_reason(said))
        if said.asked.include_usage:
            last += _event({**_envelope(said, "chat.completion.chunk", []), **_usage(said)})
        return last + b"data: [DONE]\n\n"

    def refusal(self, message: str) -> dict[str, Any]:
        return {"error": {"message": message, "type": "simulated"}}


def _finish_reason(said: Said) -> str:
    return "length" if said.cut_short else "stop"


def _chunk(said: Said, delta: dict[str, str], finish_reason: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return _event(_envelope(said, "chat.completion.chunk", [choice]))


def _envelope(said: Said, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": "simulated", "object": kind, "created": said.created, "model": said.model, "choices": choices}


def _usage(said: Said) -> dict[str, Any]:
    completion = len(said.pieces)
    total = said.prompt_tokens + completion
    return {
        "usage": {"prompt_tokens": said.prompt_tokens, "completion_tokens": completion, "total_tokens": total},
    }


# ------------------------------------------------------------------------------------------------------ anthropic


class _Messages(Struct):
    messages: Annotated[list[_Message], Meta(min_length=1)]
    model: str
    max_tokens: _Length
    stream: bool = False
    system: str = ""


class AnthropicSpeech:
    path: Final = "/v1/messages"
    endless: Final = b'{"type": "message", "content": [{"type": "text", "text": "'

    def asked(self, body: bytes) -> Asked:
        messages = msgspec.json.decode(body, type=_Messages)
        return Asked(
            prompt=messages.messages[-1].content,
            model=messages.model,
            max_tokens=messages.max_tokens,
            stream=messages.stream,
            # The protocol has no field for it: it is asked for in words.
            in_json="JSON" in messages.system,
        )

    def whole(self, said: Said) -> dict[str, Any]:
        content = [{"type": "text", "text": said.text}]
        usage = {"input_tokens": said.prompt_tokens, "output_tokens": len(said.pieces)}
        return {**_message(said, content, usage), "stop_reason": _stop_reason(said)}

    def opening(self, said: Said) -> bytes:
        message = _message(said, [], {"input_tokens": said.prompt_tokens, "output_tokens": 1})
        block = {"type": "text", "text": ""}
        return (
            _named_event({"type": "message_start", "message": message})
            + _named_event({"type": "content_block_start", "index": 0, "content_block": block})
            + _named_event({"type": "ping"})
        )

    def piece(self, said: Said, text: str) -> bytes:
        delta = {"type": "text_delta", "text": text}
        return _named_event({"type": "content_block_delta", "index": 0, "delta": delta})

    def closing(self, said: Said) -> bytes:
        delta = {"stop_reason": _stop_reason(said), "stop_sequence": None}
        usage = {"output_tokens": len(said.pieces)}
        return (
            _named_event({"type": "content_block_stop", "index": 0})
            + _named_event({"type": "message_delta", "delta": delta, "usage": usage})
            + _named_event({"type": "message_stop"})
        )

    def refusal(self, message: str) -> dict[str, Any]:
        return {"type": "error", "error": {"type": "simulated", "message": message}}


def _stop_reason(said: Said) -> str:
    return "max_tokens" if said.cut_short else "end_turn"


def _message(said: Said, content: list[dict[str, str]], usage: dict[str, int]) -> dict[str, Any]:
    return {
        "id": "simulated",
        "type": "message",
        "role": "assistant",
        "model": said.model,
        "content": content,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }


def _named_event(value: dict[str, Any]) -> bytes:
    return f"event: {value['type']}\n".encode() + _event(value)


def _event(value: object) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def _in_json(response_format: Any) -> bool:
    return isinstance(response_format, dict) and response_format.get("type") in {"json_object", "json_schema"}


def model_list(names: tuple[str, ...]) -> dict[str, Any]:
    """`/v1/models`, which two protocols have in common; each reads over what is the other's."""
    data = [
        {
            "id": name,
            "object": "model",
            "created": 0,
            "owned_by": "simulated",
            "type": "model",
            "display_name": name,
            "created_at": "1970-01-01T00:00:00Z",
        }
        for name in names
    ]
    return {"object": "list", "data": data, "has_more": False, "first_id": names[0], "last_id": names[-1]}


SPEECHES: Final[tuple[Speech, ...]] = (AltlasSpeech(), OpenAISpeech(), AnthropicSpeech())
