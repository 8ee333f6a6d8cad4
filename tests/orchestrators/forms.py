"""Every form in which an answer may come, as bytes into which tests put what they like."""

from __future__ import annotations

from typing import Final

import msgspec

from runner.orchestrators.settings import Protocol

_TEXT: Final = b"<TEXT>"
_TOKENS: Final = b"<TOKENS>"
_MODEL: Final = b"<MODEL>"


class Form(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    protocol: Protocol
    content_type: bytes = b"application/json"
    template: bytes

    @property
    def streamed(self) -> bool:
        return self.content_type == b"text/event-stream"

    def body(self, text: bytes = b'"hi"', *, tokens: bytes = b"2", model: bytes = b'"big"') -> bytes:
        """A whole answer; what is given is JSON, or pretends to be."""
        return self.template.replace(_TEXT, text).replace(_TOKENS, tokens).replace(_MODEL, model)

    def event_with(self, text: bytes) -> bytes:
        """The one event that holds the text."""
        return next(event for event in self.body(text).split(b"\n\n") if text in event) + b"\n\n"

    def head(self, *fields: bytes) -> bytes:
        lines = (b"HTTP/1.1 200 OK", b"Content-Type: " + self.content_type, b"Connection: close", *fields)
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def answer(self, text: bytes = b'"hi"', *, tokens: bytes = b"2", model: bytes = b'"big"') -> bytes:
        return self.head() + self.body(text, tokens=tokens, model=model)


FORMS: Final = (
    Form(
        name="altlas",
        protocol=Protocol.ALTLAS,
        template=b'{"text": <TEXT>, "model_used": <MODEL>, "tokens_used": <TOKENS>}',
    ),
    Form(
        name="openai",
        protocol=Protocol.OPENAI,
        template=b'{"model": <MODEL>, "choices": [{"message": {"content": <TEXT>}, "finish_reason": "stop"}],'
        b' "usage": {"total_tokens": <TOKENS>}}',
    ),
    Form(
        name="openai-streamed",
        protocol=Protocol.OPENAI,
        content_type=b"text/event-stream",
        template=b": hello\n\n"
        b'data: {"model": <MODEL>, "choices": [{"delta": {"content": <TEXT>}, "finish_reason": null}]}\n\n'
        b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\r\n\r\n'
        b'data: {"choices": [],\ndata: "usage": {"total_tokens": <TOKENS>}}\n\n'
        b"data: [DONE]\r\r",
    ),
    Form(
        name="anthropic",
        protocol=Protocol.ANTHROPIC,
        template=b'{"type": "message", "model": <MODEL>, "content": [{"type": "text", "text": <TEXT>}],'
        b' "stop_reason": "end_turn", "usage": {"output_tokens": <TOKENS>}}',
    ),
    Form(
        name="anthropic-streamed",
        protocol=Protocol.ANTHROPIC,
        content_type=b"text/event-stream",
        template=b"event: message_start\n"
        b'data: {"type": "message_start", "message": {"model": <MODEL>, "content": []}}\n\n'
        b'event: ping\r\ndata: {"type": "ping"}\r\n\r\n'
        b'data: {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}\n\n'
        b'data: {"type": "content_block_delta",\ndata: "delta": {"type": "text_delta", "text": <TEXT>}}\n\n'
        b'data: {"type": "message_delta", "delta": {"stop_reason": "end_turn"},\n'
        b'data: "usage": {"output_tokens": <TOKENS>}}\n\n'
        b'event: message_stop\rdata: {"type": "message_stop"}\r\r',
    ),
)
