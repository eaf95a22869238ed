"""What every form of streaming has in common: rows are answered in order, and what is wrong with one stays its own.

A part is as many rows as came together. Where it cannot be read as a whole, its wrong rows are found, and the others
are computed together; where it cannot be answered, it is halved, down to the rows that the model cannot stand. Each of
them gets the error that it would get alone, so that the answer to a row does not depend on how the body was cut into
pieces. What no row is to blame for (the deadline of a part, columns that the model does not have, a body that does not
come, a service that stops) ends the stream, and is its last item.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, Generic, TypeAlias, TypeVar

from service.core.contracts import HeldVersion
from service.core.deadline import NEVER, Deadline
from service.core.errors import DeadlinePassed, InvalidRows, RequestError, Unavailable
from service.core.futures import Done, settle
from service.core.messages import InferReply, InferRequest
from service.core.table import Table
from service.protocols.columnar.reply_table import n_rows, rows_between
from service.protocols.http import HttpRequest
from service.protocols.status import problem_of, refusal_of, within_limit

P = TypeVar("P")
T = TypeVar("T")

# What yields futures to be waited for, and returns something in the end.
Steps: TypeAlias = Generator[Future[bytes], None, T]


@dataclass(frozen=True, slots=True)
class Refused:
    """One row that has no answer. `row` counts from zero over the whole stream; None is the stream itself."""

    row: int | None
    error: BaseException

    def item(self) -> bytes:
        """The error as JSON: what a reply of `status` would say, and the row."""
        place = {} if self.row is None else {"row": self.row}
        return within_limit(problem_of(refusal_of(self.error), **place))


# Of a part, in order: the answers to some rows, or why one has none. The same once it is known which row that is.
Found = InferReply | BaseException
Outcome = InferReply | Refused

# Parts into which one is cut to find its wrong rows: more cost more where one row is wrong, fewer where all are.
WAYS: Final = 8


class RowStream(ABC, Generic[P]):
    """Implements `protocols.http.Duplex` for one form; `P` is what it makes a part of.

    Args:
        held: closed with the stream.
        outputs: asked of every row.
        http: the request. What its deadline allows is allowed for each part.
    """

    def __init__(self, held: HeldVersion, outputs: tuple[str, ...], http: HttpRequest) -> None:
        self.held = held
        self.signature = held.served.signature
        self.outputs = outputs
        self.error: BaseException | None = None
        self.is_over = False
        self._http = http
        self._rows = 0  # answered so far
        self._deadline = NEVER

    def feed(self, piece: bytes) -> Iterator[Future[bytes]]:
        return self._guarded(self.take(piece))

    def finish(self) -> Iterator[Future[bytes]]:
        return self._guarded(self.end())

    def fail(self, error: BaseException) -> Iterator[Future[bytes]]:
        if not self.is_over:
            self.is_over = True
            yield from self.last(self._note(Refused(None, error)))

    def close(self) -> None:
        self._deadline.cancel()
        self.held.close()

    # -- what a form says ------------------------------------------------------------------------

    @abstractmethod
    def take(self, piece: bytes) -> Iterator[Future[bytes]]:
        """Answers (`answer`) to what is complete with `piece`. Raises what ends the stream."""

    @abstractmethod
    def end(self) -> Iterator[Future[bytes]]:
        """Answers to what is left, and what stands behind the last answer."""

    @abstractmethod
    def size(self, part: P) -> int:
        """Rows."""

    @abstractmethod
    def between(self, part: P, start: int, end: int) -> P: ...

    @abstractmethod
    def joined(self, parts: Sequence[P]) -> P:
        """At least one of them, and none is empty."""

    @abstractmethod
    def read(self, part: P) -> Table:
        """Raises RequestError: for several rows any, for one row what its caller is told."""

    @abstractmethod
    def write(self, outcomes: Sequence[Outcome]) -> bytes: ...

    @abstractmethod
    def last(self, refused: Refused) -> Iterator[Future[bytes]]:
        """The item that ends the stream before its time, and what stands behind it."""

    # -- what they have in common ----------------------------------------------------------------

    def answer(self, part: P, most: int) -> Iterator[Future[bytes]]:
        """Answers to the rows of `part`, at most `most` of them at a time."""
        most = min(most, self.held.max_rows)
        for start in range(0, self.size(part), most):
            self._deadline = Deadline.after(self._http.deadline.seconds)
            found = yield from self._found(self.between(part, start, start + most))
            yield Done(self.write(self._placed(found)))

    def ask(self, rows: Table) -> Steps[Found]:
        """What the model answers, or what it fails with."""
        try:
            answer = self.held.infer(InferRequest(rows, self.outputs), self._deadline, may_block=self._http.may_block)
        except RequestError as error:
            return error
        if not answer.done():
            yield settle(answer, lambda _: b"")
        failure = answer.exception()
        return answer.result() if failure is None else failure

    def _found(self, part: P) -> Steps[list[Found]]:
        try:
            rows = self.read(part)
        except RequestError as error:
            if _is_of_all(error):
                raise
            return [error] if self.size(part) == 1 else (yield from self._without_wrong_rows(part))
        found = yield from self.ask(rows)
        if isinstance(found, DeadlinePassed | Unavailable):
            raise found
        if isinstance(found, InferReply) or self.size(part) == 1:
            return [found]
        return (yield from self._in_halves(part))

    def _in_halves(self, part: P) -> Steps[list[Found]]:
        middle = self.size(part) // 2
        first = yield from self._found(self.between(part, 0, middle))
        return first + (yield from self._found(self.between(part, middle, self.size(part))))

    def _without_wrong_rows(self, part: P) -> Steps[list[Found]]:
        """For a part that cannot be read as it is: what can be read is computed together."""
        wrong = yield from self._wrong_rows(part, 0)
        if not wrong:  # each is sound, but they are not of one kind
            return (yield from self._in_halves(part))
        places = [-1, *wrong, self.size(part)]
        runs = [self.between(part, before + 1, after) for before, after in pairwise(places) if before + 1 < after]
        found = (yield from self._found(self.joined(runs))) if runs else []
        return list(woven(found, wrong))

    def _wrong_rows(self, part: P, first: int) -> Steps[dict[int, BaseException]]:
        """Why rows of `part`, the first of which counts as `first`, cannot be read; in order."""
        try:
            self.read(part)
            return {}
        except RequestError as error:
            failure = error
        count = self.size(part)
        if count == 1:
            yield Done(b"")  # it takes its time to say what is wrong: whoever waits may let others go first
            return {first: failure}
        wrong: dict[int, BaseException] = {}
        step = math.ceil(count / WAYS)
        for start in range(0, count, step):
            wrong |= yield from self._wrong_rows(self.between(part, start, start + step), first + start)
        return wrong

    def _placed(self, found: Iterable[Found]) -> list[Outcome]:
        """With the rows of the stream that they are of."""
        outcomes: list[Outcome] = []
        for one in found:
            if isinstance(one, InferReply):
                outcomes.append(one)
                self._rows += rows_of(one)
            else:
                outcomes.append(self._note(Refused(self._rows, of_row(one, self._rows))))
                self._rows += 1
        if (timing := self._http.deadline.timing) is not None:
            timing.rows = self._rows
        return outcomes

    def _guarded(self, answers: Iterator[Future[bytes]]) -> Iterator[Future[bytes]]:
        if self.is_over:
            return
        try:
            yield from answers
        except Exception as error:
            yield from self.fail(error)

    def _note(self, refused: Refused) -> Refused:
        """For the log, which knows one error of a request: the first, unless a later one is the service's own."""
        if self.error is None or (_is_own(refused.error) and not _is_own(self.error)):
            self.error = refused.error
        return refused


def rows_of(reply: InferReply) -> int:
    return n_rows(next(iter(reply.outputs.values())))


def woven(found: Iterable[Found], wrong: Mapping[int, BaseException]) -> Iterator[Found]:
    """`found`, with `wrong` at the rows that are their keys, in order. Answers to several rows are cut up for that."""
    errors = iter(wrong.items())
    place, error = next(errors, (None, None))
    row = 0
    for one in found:
        start, end = 0, rows_of(one) if isinstance(one, InferReply) else 1
        while error is not None and place is not None and place <= row + end - start:
            if place > row:
                yield _between(one, start, start + place - row)
                start += place - row
            yield error
            row = place + 1
            place, error = next(errors, (None, None))
        if start < end:
            yield _between(one, start, end)
            row += end - start
    if error is not None:
        yield error
        yield from (error for _, error in errors)


def _between(found: Found, start: int, end: int) -> Found:
    if not isinstance(found, InferReply):
        return found
    return replace(found, outputs={name: rows_between(values, start, end) for name, values in found.outputs.items()})


def of_row(error: BaseException, row: int) -> BaseException:
    """What is wrong with the only row of a part, as what is wrong with this row of the stream."""
    if not isinstance(error, InvalidRows):
        return error
    return InvalidRows([replace(problem, row=row) for problem in error.problems], error.count)


def _is_of_all(error: RequestError) -> bool:
    """Whether it is no row that is wrong, but a column of all."""
    return isinstance(error, InvalidRows) and any(problem.row is None for problem in error.problems)


def _is_own(error: BaseException) -> bool:
    return refusal_of(error).status >= 500
