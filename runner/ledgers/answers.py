"""Earlier answers of AI orchestrators: bounded by number, bytes and age, the oldest go first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec
import sqlalchemy as sa

from runner.core.answers import AnswerCachePolicy, KeptAnswer
from runner.core.plan import Instant
from runner.ledgers.driver import Connection
from runner.ledgers.schema import answers
from runner.ledgers.writes import Keeping

_KEY: Final = sa.bindparam("of", type_=sa.LargeBinary)
_ONE: Final = sa.select(answers.c.output, answers.c.endpoint, answers.c.model, answers.c.given_at).where(
    answers.c.key == _KEY, answers.c.given_at >= sa.bindparam("since")
)
_DELETE: Final = sa.delete(answers).where(answers.c.key == _KEY)
_INSERT: Final = sa.insert(answers)
_FORGET: Final = sa.delete(answers).where(answers.c.given_at < sa.bindparam("oldest"))
_HELD: Final = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(answers.c.size), 0)).select_from(answers)
_OLDEST: Final = sa.select(answers.c.key, answers.c.size).order_by(answers.c.given_at, answers.c.key)


def keep(connection: Connection, writes: Sequence[Keeping]) -> list[None]:
    """All of a commit, then one look at what is too much."""
    for write in writes:
        connection.execute(_DELETE, {"of": write.key})
        row = {"key": write.key, "size": len(write.answer.output), **msgspec.structs.asdict(write.answer)}
        connection.execute(_INSERT, row)
    newest = max(write.answer.given_at for write in writes)
    policy = writes[-1].policy
    connection.execute(_FORGET, {"oldest": newest - span(policy)})
    count, size = connection.execute(_HELD).first() or (0, 0)
    if count > policy.max_answers or size > policy.max_bytes:
        oldest = connection.execute(_OLDEST)
        doomed = list(beyond(oldest, count, size, policy))
        oldest.close()
        for key in doomed:
            connection.execute(_DELETE, {"of": key})
    return [None for _ in writes]


def answer(connection: Connection, key: bytes, since: Instant) -> KeptAnswer | None:
    row = connection.execute(_ONE, {"of": key, "since": since}).first()
    if row is None:
        return None
    output, endpoint, model, given_at = row
    return KeptAnswer(output=output, endpoint=endpoint, model=model, given_at=given_at)


def span(policy: AnswerCachePolicy) -> int:
    """How long an answer is kept, in microseconds."""
    return round(policy.max_age_seconds * 1_000_000)


def beyond(
    oldest_first: Iterable[tuple[bytes, int]], count: int, size: int, policy: AnswerCachePolicy
) -> Iterator[bytes]:
    """The keys of answers that are too many or too large together, out of all with their sizes."""
    for key, bytes_ in oldest_first:
        if count <= policy.max_answers and size <= policy.max_bytes:
            return
        count, size = count - 1, size - bytes_
        yield key


class AnswersInMemory:
    """The same, for the ledger that forgets."""

    def __init__(self) -> None:
        self._kept: dict[bytes, KeptAnswer] = {}

    def keep(self, key: bytes, given: KeptAnswer, policy: AnswerCachePolicy) -> None:
        self._kept[key] = given
        oldest = given.given_at - span(policy)
        young = [(key, each) for key, each in self._kept.items() if each.given_at >= oldest]
        young.sort(key=lambda item: (item[1].given_at, item[0]))
        sizes = [(key, len(each.output)) for key, each in young]
        doomed = set(beyond(sizes, len(sizes), sum(size for _, size in sizes), policy))
        self._kept = {key: each for key, each in young if key not in doomed}

    def answer(self, key: bytes, since: Instant) -> KeptAnswer | None:
        found = self._kept.get(key)
        return found if found is not None and found.given_at >= since else None
