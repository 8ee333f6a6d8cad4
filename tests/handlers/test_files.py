"""`file_operation` on real files."""

from __future__ import annotations

import base64
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from runner.core.errors import AttemptError
from runner.handlers.files import FileOperation
from runner.handlers.settings import FileOperationSettings
from runner.ports import Outcome
from runner.testing import FakeAttempt

JOB = "job-1"


class Desk:
    """A handler, the directory of its job, and what lies beside it."""

    def __init__(self, tmp_path: Path, **settings: Any) -> None:
        self.work = tmp_path / "var" / "work" / JOB
        self.handler = FileOperation(self.work.parent, FileOperationSettings(**settings))

    async def do(self, operation: str, path: str | None = None, **parameters: Any) -> Outcome:
        given = {"operation": operation, **parameters} | ({} if path is None else {"path": path})
        with anyio.fail_after(10):
            outcome = await self.handler.run(FakeAttempt(given, kind="file_operation"))
        assert msgspec.json.encode(outcome.output)
        return outcome

    async def output(self, operation: str, path: str | None = None, **parameters: Any) -> Any:
        return (await self.do(operation, path, **parameters)).output

    async def failure(self, operation: str, path: str | None = None, **parameters: Any) -> AttemptError:
        with pytest.raises(AttemptError) as caught:
            await self.do(operation, path, **parameters)
        return caught.value

    def names(self) -> list[str]:
        """Everything in the work directory."""
        return sorted(str(path.relative_to(self.work)) for path in self.work.rglob("*"))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


# ------------------------------------------------------------------------------------------------ every operation


async def test_what_was_written_is_read(desk: Desk) -> None:
    assert await desk.output("write", "a/b.txt", content="one\n") == {"path": "a/b.txt", "size": 4}
    digest = "2c8b08da5ce60398e1f19af0e5dccc744df274b826abe585eaba68c525434806"
    assert await desk.output("read", "a/b.txt") == {"path": "a/b.txt", "size": 4, "sha256": digest, "body": "one\n"}
    assert (desk.work / "a" / "b.txt").read_bytes() == b"one\n"


async def test_turkish_names_and_contents_are_kept_byte_for_byte(desk: Desk) -> None:
    name, decomposed = "çığ/İstanbul ışığı.txt", "c\u0327ig\u0306.txt"
    text = "Şu köşe yaz köşesi\r\n\tğüşöçıİ \ufeff"
    await desk.do("write", name, content=text)
    await desk.do("write", decomposed, content="")
    assert (desk.work / "çığ" / "İstanbul ışığı.txt").read_bytes() == text.encode()
    assert await desk.output("read", name) | {"sha256": ""} == {
        "path": name,
        "size": len(text.encode()),
        "sha256": "",
        "body": text,
    }
    listed = await desk.output("list", recursive=True)
    assert [entry["path"] for entry in listed["entries"]] == [decomposed, "çığ", name]


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ({"content": {"ad": ["Çağrı", 1, None]}}, '{"ad":["Çağrı",1,null]}'),
        ({"content": None}, "null"),
        ({"content": 5}, "5"),
        ({"content": ""}, ""),
        ({"content": "a", "encoding": "json"}, '"a"'),
        ({"content": "xLHFnw==", "encoding": "base64"}, "ış"),
    ],
)
async def test_content_is_text_json_or_base64(desk: Desk, given: dict[str, Any], written: str) -> None:
    assert await desk.output("write", "f", **given) == {"path": "f", "size": len(written.encode())}
    assert (desk.work / "f").read_text(encoding="utf-8") == written


async def test_a_file_is_read_as_a_value_or_as_base64(desk: Desk) -> None:
    await desk.do("write", "f", content={"a": [1.5, "ğ"]})
    assert (await desk.output("read", "f", encoding="json"))["body"] == {"a": [1.5, "ğ"]}
    assert base64.b64decode((await desk.output("read", "f", encoding="base64"))["body"]) == '{"a":[1.5,"ğ"]}'.encode()
    await desk.do("write", "f", content="{")
    error = await desk.failure("read", "f", encoding="json")
    assert (error.reason, error.retryable) == ("INVALID_CONTENT", False)


@pytest.mark.parametrize("content", [b"\x89PNG\xff", b"a\x00b"])
async def test_what_is_no_text_is_left_as_an_artifact(desk: Desk, content: bytes) -> None:
    await desk.do("write", "d/a.PNG", content=base64.b64encode(content).decode(), encoding="base64")
    outcome = await desk.do("read", "d/a.PNG")
    assert (outcome.output["body"], outcome.output["size"]) == (None, len(content))
    (left,) = outcome.files
    assert (left.name, left.content, left.mime_type, left.artifact_type) == ("a.PNG", content, "image/png", "image")


async def test_what_is_too_large_for_an_output_is_left_as_an_artifact(tmp_path: Path) -> None:
    desk = Desk(tmp_path, max_inline_bytes=3)
    await desk.do("write", "a.json", content="1234")
    for encoding in ("utf-8", "base64", "json"):
        outcome = await desk.do("read", "a.json", encoding=encoding)
        assert outcome.output["body"] is None
        assert [(left.content, left.artifact_type) for left in outcome.files] == [(b"1234", "json")]
    await desk.do("write", "a.json", content="123")
    assert (await desk.do("read", "a.json")).files == ()


async def test_appending_makes_the_file_and_goes_on_at_its_end(desk: Desk) -> None:
    assert await desk.output("append", "log/a", content="1\n") == {"path": "log/a", "size": 2}
    assert await desk.output("append", "log/a", content={"n": 2}) == {"path": "log/a", "size": 9}
    assert (desk.work / "log" / "a").read_text() == '1\n{"n":2}'


async def test_a_file_is_copied_and_moved(desk: Desk) -> None:
    await desk.do("write", "a", content="one")
    copied = await desk.output("copy", "a", destination="b/c")
    assert copied == {"path": "a", "destination": "b/c", "files": 1, "size": 3}
    assert await desk.output("move", "b/c", destination="d/e") == {"path": "b/c", "destination": "d/e"}
    assert desk.names() == ["a", "b", "d", "d/e"]
    assert (desk.work / "d" / "e").read_text() == "one"


async def test_a_directory_is_copied_moved_and_deleted_with_all_that_is_in_it(desk: Desk) -> None:
    await desk.do("write", "a/b/c", content="one")
    await desk.do("write", "a/d", content="two!")
    (desk.work / "a" / "d").chmod(0o755)
    assert (await desk.failure("copy", "a", destination="e")).reason == "WRONG_FILE_TYPE"
    copied = await desk.output("copy", "a", destination="e/f", recursive=True)
    assert copied == {"path": "a", "destination": "e/f", "files": 4, "size": 7}
    assert (desk.work / "e" / "f" / "d").stat().st_mode & 0o777 == 0o700
    await desk.do("move", "a", destination="g")
    assert (await desk.failure("delete", "g")).reason == "DIRECTORY_NOT_EMPTY"
    assert await desk.output("delete", "g", recursive=True) == {"path": "g", "deleted": 4}
    assert desk.names() == ["e", "e/f", "e/f/b", "e/f/b/c", "e/f/d"]
    assert (desk.work / "e" / "f" / "b" / "c").read_text() == "one"


async def test_an_empty_directory_needs_no_recursive_to_be_deleted(desk: Desk) -> None:
    await desk.do("write", "a/b", content="")
    await desk.do("delete", "a/b")
    assert await desk.output("delete", "a") == {"path": "a", "deleted": 1}
    assert desk.names() == []


async def test_a_list_is_sorted_and_tells_what_each_entry_is(desk: Desk) -> None:
    assert await desk.output("list") == {"path": ".", "entries": []}
    for path in ("b/x.txt", "b/deep/y.txt", "a.TXT", "c.txt"):
        await desk.do("write", path, content="12")
    (desk.work / "link").symlink_to("/etc")
    entries = (await desk.output("list"))["entries"]
    assert [(entry["path"], entry["type"], entry["size"]) for entry in entries] == [
        ("a.TXT", "file", 2),
        ("b", "directory", None),
        ("c.txt", "file", 2),
        ("link", "symlink", None),
    ]
    assert entries[0]["modified_at"].endswith("Z")
    below = await desk.output("list", "b", recursive=True)
    assert [entry["path"] for entry in below["entries"]] == ["b/deep", "b/deep/y.txt", "b/x.txt"]


@pytest.mark.parametrize(
    ("pattern", "recursive", "found"),
    [
        ("*.txt", False, ["c.txt"]),
        ("*.txt", True, ["b/deep/y.txt", "b/x.txt", "c.txt"]),
        ("b/*.txt", True, ["b/x.txt"]),
        ("[xy].*", True, ["b/deep/y.txt", "b/x.txt"]),
        ("?", True, ["b"]),
        ("*" * 1000, False, ["b", "c.txt"]),
        ("nothing", True, []),
    ],
)
async def test_a_list_is_narrowed_by_a_pattern(desk: Desk, pattern: str, recursive: bool, found: list[str]) -> None:
    for path in ("b/x.txt", "b/deep/y.txt", "c.txt"):
        await desk.do("write", path, content="")
    listed = await desk.output("list", pattern=pattern, recursive=recursive)
    assert [entry["path"] for entry in listed["entries"]] == found


async def test_names_that_are_no_utf_8_are_told_all_the_same(desk: Desk) -> None:
    await desk.do("list")
    (desk.work / "a\udcff").write_bytes(b"")
    assert [entry["path"] for entry in (await desk.output("list"))["entries"]] == ["a\ufffd"]


# ------------------------------------------------------------------------------------------------------ once more


async def test_what_can_be_repeated_harmlessly_is(desk: Desk) -> None:
    for _ in range(2):
        await desk.do("write", "a/b", content="one")
        await desk.do("copy", "a", destination="c", recursive=True)
        await desk.do("copy", "a/b", destination="d")
    for deleted in (2, 0):
        assert (await desk.output("delete", "c", recursive=True, missing_ok=True))["deleted"] == deleted
    assert desk.names() == ["a", "a/b", "d"]


async def test_copying_a_directory_over_another_leaves_nothing_of_it(desk: Desk) -> None:
    await desk.do("write", "old/gone", content="")
    await desk.do("write", "new/here", content="")
    await desk.do("copy", "new", destination="old", recursive=True)
    await desk.do("write", "third/x", content="")
    await desk.do("move", "third", destination="new")
    assert desk.names() == ["new", "new/x", "old", "old/here"]


async def test_nothing_is_replaced_where_that_is_not_wanted(desk: Desk) -> None:
    await desk.do("write", "a", content="one", overwrite=False)
    await desk.do("write", "b", content="two")
    for operation, more in (
        ("write", {"content": "x"}),
        ("copy", {"destination": "b"}),
        ("move", {"destination": "b"}),
    ):
        error = await desk.failure(operation, "a", overwrite=False, **more)
        assert (error.reason, error.retryable) == ("FILE_EXISTS", False)
    assert ((desk.work / "a").read_text(), (desk.work / "b").read_text()) == ("one", "two")


async def test_what_is_missing_is_named(desk: Desk) -> None:
    for operation in ("read", "delete", "copy", "move"):
        error = await desk.failure(operation, "no/such", destination="b")
        assert (error.reason, error.retryable) == ("FILE_NOT_FOUND", False)
        assert error.message == "there is no `no`"
    assert (await desk.failure("list", "nowhere")).reason == "FILE_NOT_FOUND"
    assert (await desk.failure("write", "no/such", content="", create_parents=False)).message == "there is no `no`"
    absent = await desk.output("read", "no", missing_ok=True)
    assert absent == {"path": "no", "size": None, "sha256": None, "body": None}
    assert desk.names() == []


async def test_files_and_directories_do_not_take_each_others_place(desk: Desk) -> None:
    await desk.do("write", "file", content="one")
    await desk.do("write", "directory/x", content="two")
    for operation, path, more in (
        ("read", "directory", {}),
        ("write", "directory", {"content": ""}),
        ("append", "directory", {"content": ""}),
        ("copy", "file", {"destination": "directory"}),
        ("copy", "directory", {"destination": "file", "recursive": True}),
        ("move", "directory", {"destination": "file"}),
        ("read", "file/x", {}),
        ("write", "file/x", {"content": ""}),
        ("list", "file", {}),
    ):
        assert (await desk.failure(operation, path, **more)).reason == "WRONG_FILE_TYPE", (operation, path)
    assert desk.names() == ["directory", "directory/x", "file"]


@pytest.mark.parametrize(("path", "destination"), [("a", "a"), ("a", "a/b/c"), ("a/b", "a"), ("a", "./a//")])
async def test_nothing_is_copied_or_moved_into_itself(desk: Desk, path: str, destination: str) -> None:
    await desk.do("write", "a/b/x", content="one")
    for operation in ("copy", "move"):
        error = await desk.failure(operation, path, destination=destination, recursive=True)
        assert error.reason == "INVALID_PARAMETERS"
    assert desk.names() == ["a", "a/b", "a/b/x"]


# ------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({}, "parameter `operation` is missing"),
        ({"operation": "truncate"}, "parameter `operation` is wrong"),
        ({"operation": "read"}, "parameter `path` is missing"),
        ({"operation": "delete", "path": "./", "recursive": True}, "parameter `path` is missing"),
        ({"operation": "read", "path": 5}, "parameter `path` is wrong"),
        ({"operation": "read", "path": "a\0b"}, "parameter `path` holds a NUL character"),
        ({"operation": "read", "path": "\ud800"}, "parameter `path` holds half of a surrogate pair"),
        ({"operation": "read", "path": "ş" * 128}, "parameter `path` is too long"),
        ({"operation": "read", "path": "a/" * 2048}, "parameter `path` is too long"),
        ({"operation": "read", "path": "a/.alt-runner.incoming"}, "reserved"),
        ({"operation": "write", "path": "a"}, "parameter `content` is missing"),
        ({"operation": "write", "path": "a", "content": "\ud800"}, "parameter `content` holds half"),
        ({"operation": "write", "path": "a", "content": ["\ud800"]}, "parameter `content` holds half"),
        ({"operation": "write", "path": "a", "content": "a", "encoding": "base64"}, "parameter `content` is no base64"),
        ({"operation": "write", "path": "a", "content": "ş", "encoding": "base64"}, "parameter `content` is no base64"),
        ({"operation": "write", "path": "a", "content": 5, "encoding": "base64"}, "parameter `content` must be a text"),
        ({"operation": "write", "path": "a", "content": "", "encoding": "latin-1"}, "parameter `encoding` is wrong"),
        ({"operation": "copy", "path": "a"}, "parameter `destination` is missing"),
        ({"operation": "move", "path": "a", "destination": "."}, "parameter `destination` names the work directory"),
        ({"operation": "list", "pattern": ""}, "parameter `pattern` is wrong"),
    ],
)
async def test_a_mistake_is_told_before_anything_happens(desk: Desk, parameters: dict[str, Any], told: str) -> None:
    with pytest.raises(AttemptError) as caught:
        await desk.handler.run(FakeAttempt(parameters))
    assert (caught.value.reason, caught.value.retryable) == ("INVALID_PARAMETERS", False)
    assert told in caught.value.message
    assert not desk.work.exists()


async def test_it_can_be_turned_off(tmp_path: Path) -> None:
    error = await Desk(tmp_path, enabled=False).failure("list")
    assert (error.reason, error.retryable) == ("HANDLER_DISABLED", False)
    assert "file_operation.enabled" in error.message


# --------------------------------------------------------------------------------------------------------- limits


#: Setting → a limit that two small files keep, and what goes beyond it.
OVER: dict[str, tuple[int, list[dict[str, Any]]]] = {
    "max_file_bytes": (
        10,
        [
            {"operation": "write", "path": "c", "content": "x" * 11},
            {"operation": "append", "path": "c", "content": "xxx"},
        ],
    ),
    "max_total_bytes": (
        22,
        [
            {"operation": "write", "path": "d", "content": "x" * 10},
            {"operation": "append", "path": "c", "content": "x" * 10},
            {"operation": "copy", "path": "a", "destination": "d", "recursive": True},
        ],
    ),
    "max_files": (
        4,
        [
            {"operation": "write", "path": "d/e/f", "content": ""},
            {"operation": "copy", "path": "a", "destination": "d", "recursive": True},
        ],
    ),
    "max_depth": (
        3,
        [
            {"operation": "write", "path": "1/2/3/4/5", "content": ""},
            {"operation": "copy", "path": "a", "destination": "1/2/3/4", "recursive": True},
            {"operation": "move", "path": "a", "destination": "1/2/3/4"},
        ],
    ),
}


@pytest.mark.parametrize("setting", OVER)
async def test_a_limit_that_is_hit_is_named_and_nothing_is_left_of_what_hit_it(tmp_path: Path, setting: str) -> None:
    limit, changes = OVER[setting]
    desk = Desk(tmp_path, **{setting: limit})
    await desk.do("write", "a/b", content="12345678")
    await desk.do("write", "c", content="12345678")
    before = desk.names()
    for change in changes:
        error = await desk.failure(**change)
        assert (error.reason, error.retryable) == ("TOO_LARGE", False)
        assert f"file_operation.{setting}" in error.message
    made_on_the_way = {"d", "d/e", "1", "1/2", "1/2/3"}
    assert [name for name in desk.names() if name not in made_on_the_way] == before
    assert (desk.work / "c").read_text() == "12345678"


async def test_what_programs_put_into_the_directory_is_bounded_where_it_is_read(tmp_path: Path) -> None:
    desk = Desk(tmp_path, max_file_bytes=10, max_files=3)
    await desk.do("list")
    (desk.work / "large").write_bytes(b"x" * 11)
    for operation in ("read", "copy"):
        error = await desk.failure(operation, "large", destination="b")
        assert (error.reason, "max_file_bytes" in error.message) == ("TOO_LARGE", True)
    for name in "abc":
        (desk.work / name).write_bytes(b"")
    assert "max_files" in (await desk.failure("list")).message
    assert "max_files" in (await desk.failure("write", "d", content="")).message
    for name in "abc":
        (desk.work / name).unlink()
    await desk.do("write", "d", content="")


async def test_room_comes_back_with_what_is_deleted_and_replaced(tmp_path: Path) -> None:
    desk = Desk(tmp_path, max_total_bytes=20, max_files=3)
    for _ in range(10):
        await desk.do("write", "a", content="x" * 10)
        await desk.do("copy", "a", destination="b")
        await desk.do("delete", "b")
        await desk.do("move", "a", destination="d/a")
        await desk.do("delete", "d", recursive=True)
    assert desk.names() == []


# ------------------------------------------------------------------------------------------------------ at a time


async def test_operations_of_one_job_at_the_same_time_do_not_hurt_each_other(desk: Desk) -> None:
    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(partial(desk.do, "append", "log", content=f"{number}\n"))
            tasks.start_soon(partial(desk.do, "write", f"d/{number}", content=str(number)))
            tasks.start_soon(partial(desk.do, "list", recursive=True))
    assert sorted(map(int, (desk.work / "log").read_text().split())) == list(range(20))
    assert len(desk.names()) == 22
