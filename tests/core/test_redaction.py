"""Secrets stay out, however a text is cut and however secrets overlap."""

from __future__ import annotations

import html
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.core.redaction import MIN_LENGTH, Redaction

#: Few letters, so that secrets begin, end and contain each other.
words = st.text("ab", min_size=1, max_size=9)
vaults = st.lists(words, max_size=4).map(lambda values: {f"S{place}": value for place, value in enumerate(values)})


@settings(max_examples=66)
@given(vaults, st.lists(st.text("abc", max_size=12), max_size=8))
def test_a_stream_is_redacted_like_the_whole_text_however_it_is_cut(secrets: dict[str, str], pieces: list[str]) -> None:
    whole, stream = Redaction(secrets), Redaction(secrets)
    told = [stream.feed(piece) for piece in pieces]
    assert "".join((*told, stream.flush())) == whole.text("".join(pieces))


@settings(max_examples=50)
@given(vaults, st.text("abc", max_size=40))
def test_no_secret_is_left_in_text_bytes_or_values(secrets: dict[str, str], text: str) -> None:
    redaction = Redaction(secrets)
    cleaned = [
        redaction.text(text),
        redaction.data(text.encode()).decode(),
        redaction.value([{text: [text]}])[0].popitem()[1][0],
    ]
    assert len(set(cleaned)) == 1
    for value in secrets.values():
        assert len(value) < MIN_LENGTH or value not in cleaned[0]


def test_the_longer_of_two_secrets_that_begin_alike_leaves_no_rest() -> None:
    redaction = Redaction({"SHORT": "abcd", "LONG": "abcdefgh"})
    assert redaction.text("abcdefgh abcd") == "[secret LONG] [secret SHORT]"
    assert redaction.data(b"abcdefgh") == b"[secret LONG]"
    assert redaction.feed("x abcd") == "x "
    assert redaction.feed("efgh") == "[secret LONG]"


def test_what_is_held_back_comes_with_the_next_piece_or_the_end() -> None:
    redaction = Redaction({"KEY": "şifre-42"})
    assert redaction.feed("the şif") == "the "
    assert redaction.feed("ahane") == "şifahane"
    assert redaction.feed("şifre-4") == ""
    assert redaction.flush() == "şifre-4"
    assert redaction.flush() == ""


def test_a_stream_without_secrets_is_never_held_back() -> None:
    assert Redaction({}).feed("anything") == "anything"
    assert Redaction({"TINY": "abc"}).feed("abc") == "abc"


def test_keys_and_nested_values_are_redacted_and_other_values_left_alone() -> None:
    redaction = Redaction({"KEY": "hunter22"})
    value = {"hunter22": [1, None, True, {"a": ("x hunter22",)}]}
    assert redaction.value(value) == {"[secret KEY]": [1, None, True, {"a": ["x [secret KEY]"]}]}


def test_a_secret_that_is_no_utf_8_is_found_in_bytes() -> None:
    redaction = Redaction({"RAW": b"\xff\xfe-key".decode("utf-8", "surrogateescape")})
    assert redaction.data(b"a \xff\xfe-key b") == b"a [secret RAW] b"


HARD = 'lïne one/"quoted"\\back\nand <line> two & more\n'


@pytest.mark.parametrize(
    "shown",
    [
        HARD,
        json.dumps(HARD),
        json.dumps(HARD, ensure_ascii=False),
        json.dumps(HARD).replace("/", "\\/"),
        repr(HARD),
        quote(HARD, safe=""),
        quote(HARD),
        quote_plus(HARD),
        html.escape(HARD),
        html.escape(HARD, quote=False),
        HARD.strip(),
        " ".join(HARD.split()),
        'lïne one/"quoted"\\back',
        "and <line> two & more",
        json.dumps('lïne one/"quoted"\\back'),
    ],
)
def test_a_secret_is_found_as_others_quote_it_and_line_by_line(shown: str) -> None:
    redaction, stream = Redaction({"KEY": HARD}), Redaction({"KEY": HARD})
    cleaned = redaction.text(f"<<{shown}>>")
    assert cleaned.replace('"', "").replace("'", "").strip("<>\n") == "[secret KEY]"
    assert redaction.data(f"<<{shown}>>".encode()).decode() == cleaned
    assert "".join((*map(stream.feed, f"<<{shown}>>"), stream.flush())) == cleaned


def test_the_frame_and_the_short_lines_of_a_key_file_are_nobody_s_secret() -> None:
    body = ["MIIabc123456", "ZZtop9876543", "QQ=="]
    redaction = Redaction({"PEM": "\n".join(["-----BEGIN KEY-----", *body, "-----END KEY-----\n"])})
    assert redaction.text("-----BEGIN KEY-----, QQ==, ZZtop9876543") == "-----BEGIN KEY-----, QQ==, [secret PEM]"


def test_a_secret_that_is_a_form_of_another_one_keeps_its_own_name() -> None:
    assert Redaction({"A": "a b/c", "B": "a%20b%2Fc"}).text("a%20b%2Fc") == "[secret B]"


def test_more_secrets_make_another_redaction_and_each_stream_holds_back_its_own() -> None:
    one = Redaction({"A": "first-key"})
    assert one.feed("first-") == ""
    other, more = one.knowing({}), one.knowing({"B": "second-key"})
    assert other.feed("key") == "key"
    assert more.text("first-key second-key") == "[secret A] [secret B]"
    assert one.feed("key") == "[secret A]"
    assert one.text("second-key") == "second-key"
    rotated = one.knowing({"A": "newer-key", "B": "first-key"})
    assert rotated.text("first-key newer-key") == "[secret B] [secret A]"


def test_what_an_excerpt_s_end_leaves_of_a_secret_goes_too() -> None:
    redaction = Redaction({"KEY": "first/key-of-all"})
    assert redaction.excerpt("answered: first/key-of") == "answered: [secret, cut off]"
    assert redaction.excerpt("answered: first%2Fkey-o") == "answered: [secret, cut off]"
    assert redaction.excerpt("answered: first/key-of-all") == "answered: [secret KEY]"
    assert redaction.excerpt("come first") == "come first"
