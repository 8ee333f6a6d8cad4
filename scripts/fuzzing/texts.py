"""Descriptors as bytes: written in four formats, as strangely as these allow, then damaged."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Final

import msgspec
import yaml

from scripts.fuzzing.descriptors import happens

_TOKENS: Final = (
    b"{", b"}", b"[", b"]", b":", b",", b'"', b"'", b'"""', b"'''", b"\\", b"\n", b"\r", b"\t", b" ", b"#", b"---\n",
    b"...\n", b"&a ", b"*a", b"<<: *a\n", b"!!str ", b"!!python/object:os.system ", b"!<x> ", b"? ", b"- ", b"| ",
    b">-\n",
    b"%YAML 1.2\n", b"%TAG ! x\n", b"@", b"`", b"=", b"[[a]]\n", b"[a.b]\n", b"a.b.c = 1\n", b"1979-05-27T07:32:00Z",
    b"07:32:00.999999", b"1979-13-01", b"0xff", b"0o7", b"1_000", b"+inf", b"nan", b".nan", b"-.inf", b"1e400", b"-0",
    b"1e5", b"12345678901234567890123", b"18446744073709551616", b"9" * 5_000, b"null", b"~", b"true", b"\\u0000",
    b"\\u003a", b"\\u003A", b"\\ud800", b"\\ud83d\\ude00", b"\\u0024{", b"$\\u007b", b"\\/", b"${tasks.a.output}",
    b"${",
    b"\0", b"\xff", b"\xc3(", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\xc2\x85", b"\xe2\x80\xa8",
    b'"id":"a",', b'"id" : "b",', b'"tasks":[]', b"id: a\n", b"tasks:\n", b'id = "a"\n', b"\xc1", b"\xc4\x01a",
    b"\xd4\x05x", b"\xc7\x03\x01abc", b"\xdf\xff\xff\xff\xff", b"\xdd\x7f\xff\xff\xff", b"\x81\x01\x02",
    b"\xca\x7f\xc0\0\0",
)  # fmt: skip
#: JSON's escapes have four digits.
_LAST_OF_FOUR_DIGITS: Final = "\uffff"
_quoted: Final = json.encoder.encode_basestring
_SPACES: Final = ("", "", "", " ", "\n", "\t ", "\r\n")


def written(random: Random, raw: Any) -> tuple[bytes, str]:
    """The bytes of a value, and the content type that they are of."""
    form = random.choices(("json", "strange json", "yaml", "toml", "msgpack"), (6, 7, 2, 3, 5))[0]
    return _WRITERS[form](random, raw), f"application/{form.removeprefix('strange ')}"


def _json(random: Random, raw: Any) -> bytes:
    indent = random.choice((None, None, 2))
    return json.dumps(raw, ensure_ascii=happens(random, 0.2), indent=indent).encode("utf-8", "surrogatepass")


def _strange_json(random: Random, raw: Any) -> bytes:
    """Spaces, escapes that need not be, keys that stand twice, numbers in other spellings."""
    # How strange this one is: mostly a little, so that it is often still sound.
    strangeness = random.choice((0.01, 0.05, 0.3))
    out: list[str] = []
    _strange(random, raw, strangeness, out.append)
    return "".join(out).encode("utf-8", "surrogatepass")


def _strange(random: Random, raw: Any, strangeness: float, say: Callable[[str], None]) -> None:
    odd = random.random() < strangeness
    if odd:
        say(random.choice(_SPACES))
    if isinstance(raw, dict):
        pairs = list(raw.items())
        if odd and pairs:
            pairs.insert(random.randint(0, len(pairs)), random.choice(pairs))
        say("{")
        for index, (key, item) in enumerate(pairs):
            say("," if index else "")
            _strange(random, key, strangeness, say)
            say(random.choice(_SPACES) + ":" + random.choice(_SPACES) if odd else ":")
            _strange(random, item, strangeness, say)
        say("}")
    elif isinstance(raw, list | tuple):
        say("[")
        for index, item in enumerate(raw):
            say("," if index else "")
            _strange(random, item, strangeness, say)
        say("]")
    elif isinstance(raw, str) and odd:
        say(_strange_text(random, raw))
    elif isinstance(raw, int | float) and odd:
        say(random.choice((f"{raw}", f"{raw}.0", f"{raw}e0", f"{raw}E+2", f"-{raw}", f"0{raw}", "null", f'"{raw}"')))
    else:
        say(_quoted(raw) if isinstance(raw, str) else json.dumps(raw))


def _strange_text(random: Random, text: str) -> str:
    """A JSON text with some of its characters as numbers."""
    extra = random.choice(("", "", ":", "::", '"', "\\", "$", "{", "}", "[", "\\u003a"))
    spelt = (
        f"\\u{ord(c):04x}" if c <= _LAST_OF_FOUR_DIGITS and happens(random, 0.3) else _quoted(c)[1:-1]
        for c in text + extra
    )
    return f'"{"".join(spelt)}"'


def _yaml(random: Random, raw: Any) -> bytes:
    flow = random.choice((None, True, False))
    style = random.choice((None, None, '"', "'", "|", ">"))
    try:
        text: str = yaml.dump(
            raw,
            Dumper=yaml.CSafeDumper,
            allow_unicode=True,
            sort_keys=False,
            default_flow_style=flow,
            default_style=style,
        )
    except (UnicodeEncodeError, yaml.YAMLError):  # half a surrogate pair
        return _json(random, raw)
    return text.encode("utf-8", "surrogatepass")


def _toml(_random: Random, raw: Any) -> bytes:
    return "".join(f"{_toml_value(key)} = {_toml_value(item)}\n" for key, item in raw.items()).encode(
        "utf-8", "surrogatepass"
    )


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml_value(k)} = {_toml_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    if isinstance(value, str):
        return _quoted(value).replace("\x7f", "\\u007f")
    return "0" if value is None else json.dumps(value)


def _msgpack(random: Random, raw: Any) -> bytes:
    try:
        return msgspec.msgpack.encode(raw)
    except (OverflowError, UnicodeEncodeError):
        return _json(random, raw)


_WRITERS: Final[dict[str, Callable[[Random, Any], bytes]]] = {
    "json": _json,
    "strange json": _strange_json,
    "yaml": _yaml,
    "toml": _toml,
    "msgpack": _msgpack,
}


# ---------------------------------------------------------------------------------- what the quick way must not take

_KEYS: Final = (
    '"k"',
    '"\\u006b"',
    '"k"',
    '"l"',
    '"k:"',
    '"k\\u003a"',
    '"\\""',
    '""',
    '"priority"',
    '"prompt"',
    '"task_type"',
)
_VALUES: Final = (
    '"x"', '":"', '"\\u003a"', '"\\u003A"', '"\\\\u003a"', '"\\":"', '"\\\\"', '"\\u0022:"', '"{"', '"[\\u005b"',
    '"\\u0000"', '"\\ud800"', '"\\ud83d\\ude00"', '"${nothing}"', '"\\u0024{nothing}"', '"$\\u007bnothing}"',
    '"\\u0024\\u007Bnothing}"',
    '"$\\u0024{x}"', '"\\/"', "1", "-0", "-0.0", "1.0", "1e2", "1E400", "18446744073709551615", "18446744073709551616",
    "-9223372036854775809", "null", "true", '""', '" "', '"\\u0020"', '"\\u2003"', '"low"', '"LOW"', "{}", "[]",
    '["a","a"]',
)  # fmt: skip
#: Fields of a file and of a task, each with what it often holds.
_FILE: Final = {
    "version": ('"1"', '"1.0"', '"2"', '"1\\u002e0"'),
    "title": ('"t"', '"\\u0074"'),
    "created_at": ('"2025-04-26T19:32:00Z"', '"2025-04-26T19:32:00Z"', '"2025-04-26"', '"2025-02-30T00:00:00Z"'),
    "mode": ('"normal"', '"Normal"'),
    "priority": ('"low"', '"LOW"'),
    "expected_completion_time": ("0", "-0", "1.5", "18446744073709551615", "18446744073709551616", "1e30", "1e400"),
    "tags": ("[]", '["a"]'),
}
_TASK: Final = {
    "dependencies": ('["b"]', '["b","b"]', '["\\u0062"]', "[]", '["a"]', '["c"]'),
    "timeout_seconds": ("1", "1.0", "0", "315360000", "315360000.1"),
    "retry_count": ("0", "255", "256", "1.0"),
    "weight": ("1", "1e9", "1000000001", "-1"),
    "status": ('"pending"', '"Pending"'),
    "tags": ("[]", '["a"]'),
}


def edge(random: Random) -> tuple[bytes, str]:
    """JSON that is nearly sound, in the ways that are hard to see: doubled keys, hidden colons, depth, numbers."""
    tasks = [_edge_task(random, name) for name in ("a", "b")[: random.choice((1, 2))]]
    rows = f"[{','.join(tasks)}]"
    fields = ['"id":"x"', *_edge_fields(random, _FILE, ("version", "title", "created_at")), f'"tasks":{rows}']
    if happens(random, 0.4):
        fields.append(f'"metadata":{_edge_object(random)}')
    return f"{{{','.join(fields)}}}".encode(), "application/json"


def _edge_task(random: Random, name: str) -> str:
    blank = random.choice(('" "', '"\\u2003"', '"\\t"'))
    text = blank if happens(random, 0.03) else '"d"'
    fields = [f'"id":"{name}"', f'"description":{text}', *_edge_fields(random, _TASK, ())]
    fields += [f'"{key}":{_edge_object(random)}' for key in ("parameters", "metadata") if happens(random, 0.5)]
    return f"{{{','.join(fields)}}}"


def _edge_fields(random: Random, fields: Mapping[str, tuple[str, ...]], required: tuple[str, ...]) -> list[str]:
    chosen = [key for key in fields if key in required or happens(random, 0.1)]
    if happens(random, 0.05):
        chosen.append(random.choice(chosen or list(fields)))
    return [
        f'"{key}":{random.choice(_VALUES) if happens(random, 0.03) else random.choice(fields[key])}' for key in chosen
    ]


def _edge_object(random: Random) -> str:
    pairs = [f"{random.choice(_KEYS)}:{_edge_value(random)}" for _ in range(random.choice((1, 1, 2, 3)))]
    if happens(random, 0.05):
        # The colon that is lost with the first of two is found again in the text of the second.
        pairs += ['"k":1', f'"k":"\\u003{random.choice("aA")}"']
    return f"{{{random.choice((',', ', ')).join(pairs)}}}"


def _edge_value(random: Random) -> str:
    if happens(random, 0.8):
        return random.choice(_VALUES)
    depth = random.choice((1, 2, 3, 5, 8, 60, 61))
    opening, closing = random.choice((("[", "]"), ('{"k":', "}")))
    return opening * depth + random.choice(("1", "[]", '"\\u003a"')) + closing * depth


# ---------------------------------------------------------------------------------------------------- damage


def damaged(random: Random, data: bytes, other: bytes) -> bytes:
    """The same with a few things done to it; `other` is what pieces are taken from."""
    for _ in range(random.choices((1, 2, 4, 12), (8, 4, 2, 1))[0]):
        data = random.choice(_DAMAGES)(random, data, other)
    return data


def _cut(random: Random, data: bytes) -> tuple[int, int]:
    start = random.randint(0, len(data))
    return start, min(len(data), start + random.choices((1, 3, 10, 60), (4, 3, 3, 1))[0])


def _flipped(random: Random, data: bytes, other: bytes) -> bytes:
    if not data:
        return other
    at = random.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]


def _truncated(random: Random, data: bytes, _other: bytes) -> bytes:
    return data[: random.randint(0, len(data))]


def _spliced(random: Random, data: bytes, other: bytes) -> bytes:
    return data[: random.randint(0, len(data))] + other[random.randint(0, len(other)) :]


def _repeated(random: Random, data: bytes, _other: bytes) -> bytes:
    start, end = _cut(random, data)
    return data[:end] + data[start:end] * random.choices((1, 3, 30), (6, 3, 1))[0] + data[end:]


def _removed(random: Random, data: bytes, _other: bytes) -> bytes:
    start, end = _cut(random, data)
    return data[:start] + data[end:]


def _swapped(random: Random, data: bytes, _other: bytes) -> bytes:
    (a, b), (c, d) = sorted((_cut(random, data), _cut(random, data)))
    return data if b > c else data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def _peppered(random: Random, data: bytes, _other: bytes) -> bytes:
    start, end = _cut(random, data)
    return data[:start] + random.choice(_TOKENS) + data[end if happens(random, 0.5) else start :]


def _borrowed(random: Random, data: bytes, other: bytes) -> bytes:
    at = random.randint(0, len(data))
    start, end = _cut(random, other)
    return data[:at] + other[start:end] + data[at:]


_DAMAGES: Final = (
    _flipped, _truncated, _spliced, _repeated, _removed, _swapped, _peppered, _peppered, _peppered, _borrowed,
)  # fmt: skip


def punctuation(random: Random) -> bytes:
    """Tokens of all formats, one after the other."""
    return b"".join(random.choices(_TOKENS, k=random.randint(1, 12)))


# ---------------------------------------------------------------------------------------------------- far too much


def excess(random: Random) -> tuple[bytes, str]:
    """Deep, long, or growing: what is small to send and large to read. Seldom really large."""
    count = random.choices((60, 70, 300, 3_000, 60_000), (20, 20, 20, 4, 1))[0]
    beginning, piece, end, content_type = random.choice(_EXCESSES)
    closing = happens(random, 0.7)
    data = beginning + piece * count + (end[0] * (count if closing else 0) + end[1] if end else b"")
    return data, content_type


_SOUND: Final = (
    b'{"id":"a","version":"1","title":"t","created_at":"2025-04-26T19:32:00Z","tasks":[{"id":"a","description":"d"'
)
_SOUND_YAML: Final = b"id: a\nversion: '1'\ntitle: t\ncreated_at: 2025-04-26\n"
#: What stands before, what is repeated, and what closes each and all.
_EXCESSES: Final[tuple[tuple[bytes, bytes, tuple[bytes, bytes] | None, str], ...]] = (
    (_SOUND + b',"parameters":{"p":', b"[", (b"]", b"}}]}"), "application/json"),
    (_SOUND + b',"parameters":', b'{"a":', (b"}", b"}]}"), "application/json"),
    (_SOUND + b',"metadata":{"p":"', b"x", (b"", b'"}}]}'), "application/json"),
    (_SOUND + b',"metadata":{"', b"k", (b"", b'":"\\u0000"}}]}'), "application/json"),
    (_SOUND + b',"metadata":{"x":', b"9", (b"", b"}}]}"), "application/json"),
    (_SOUND + b',"metadata":{"x":0.', b"9", (b"", b"}}]}"), "application/json"),
    (_SOUND + b',"metadata":{"x":[0', b",1e400", (b"", b"]}}]}"), "application/json"),
    (_SOUND + b',"dependencies":["b"', b',"b"', (b"", b"]}]}"), "application/json"),
    (_SOUND + b',"parameters":{"x":"', b"${", (b"", b'"}}]}'), "application/json"),
    (_SOUND + b',"parameters":{"x":"${tasks.a.output.', b"[@]|", (b"", b'@}"}}]}'), "application/json"),
    (_SOUND + b',"parameters":{"x":"${tasks.', b"a.output", (b"", b'}"}}]}'), "application/json"),
    (_SOUND + b"}", b',{"id":"a","description":"d"}', (b"", b"]}"), "application/json"),
    (_SOUND, b',"k":1', (b"", b"}]}"), "application/json"),
    (b"{", b'"tasks ":[1],', (b"", b'"a":1}'), "application/json"),
    (b"", b" ", (b"", b"{}"), "application/json"),
    (b"a: ", b"[", (b"]", b""), "application/yaml"),
    (b"a: ", b"{a: ", (b"}", b""), "application/yaml"),
    (b"a:\n ", b"- ", None, "application/yaml"),
    (_SOUND_YAML + b"x: &a [x, y]\ntasks: [", b"*a, ", (b"", b"]"), "application/yaml"),
    (_SOUND_YAML + b"x: &a {description: d}\ntasks:\n", b"- {<<: *a, id: b}\n", None, "application/yaml"),
    (_SOUND_YAML + b"x: &a {description: d}\ntasks:\n- {id: b, <<: [", b"*a, ", (b"", b"]}"), "application/yaml"),
    (b"a: &a [x]\n", b"a: &a [*a, *a]\n", None, "application/yaml"),
    (b"? ", b"? ", None, "application/yaml"),
    (b"a: ", b"!!str ", None, "application/yaml"),
    (b"a: ", b"&a ", None, "application/yaml"),
    (b"a: '", b"x\n", (b"", b"'"), "application/yaml"),
    (b'a: "', b"\\\n", (b"", b'"'), "application/yaml"),
    (b"a: |\n", b" x\n", None, "application/yaml"),
    (b"", b"---\n", None, "application/yaml"),
    (b"", b"%TAG !a! a\n", None, "application/yaml"),
    (b"", b"k: 1\n", None, "application/yaml"),
    (b"a = ", b"[", (b"]", b""), "application/toml"),
    (b"a = ", b"{a=", (b"}", b""), "application/toml"),
    (b"", b"a.", (b"", b"a = 1"), "application/toml"),
    (b"a = ''\n", b"b . ", (b"", b"b = 1"), "application/toml"),
    (b'a = """""', b"'", (b"", b'"""'), "application/toml"),
    (b"", b"[[a]]\n", None, "application/toml"),
    (b"[a", b".a", (b"", b"]\n"), "application/toml"),
    (b"a = 1", b"_1", None, "application/toml"),
    (b"a = 1979-05-27T07:32:00.", b"9", (b"", b"Z"), "application/toml"),
    (b"a = 1979-05-27 ", b" ", (b"", b"07:32:00Z"), "application/toml"),
    (b"\x81\xa1a", b"\x91", (b"", b"\x01"), "application/msgpack"),
    (b"\x81\xa1a", b"\x81\xa1a", (b"", b"\x01"), "application/msgpack"),
    (b"\x81", b"\x81", (b"\x01", b"\x01"), "application/msgpack"),
    (b"\xdf\x00\x00\x01\x2c", b"\xa1a\x01", None, "application/msgpack"),
    (b"\xdd\x00\x00\x0b\xb8", b"\xc4\x00", None, "application/msgpack"),
    (b'{"id": "a", "created_at": "2025-04-26', b" ", (b"", b'10:00:00", "tasks": []}'), "application/json"),
)  # fmt: skip
