"""Calls of one engine: at once where it is idle, together with whatever else waits where it is not."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor, Future
from typing import Final

from service.core.contracts import Engine
from service.core.deadline import NEVER, Deadline
from service.core.errors import CannotAnswer, DeadlinePassed, Unavailable
from service.core.futures import Done
from service.core.loop import Turning
from service.core.messages import InferRequest
from service.core.table import Table
from service.scheduling.admission import Admission
from service.scheduling.batch import merge, size_bytes
from service.scheduling.observer import NOBODY, Observer
from service.scheduling.slices import SLICE_ROWS, in_slices
from service.scheduling.waiting import Answer, Waiting, alike
from service.scheduling.workers import Permits

_Run = Callable[[Table, Sequence[str]], Answer]

# A lane hands its thread back after so many calls, or so long, so that a busy model does not keep the
# others waiting; each hand-over costs some 50 µs, which is little beside either.
TURNS: Final = 16
TURN_S: Final = 0.005

# What it takes to hand a call to another thread and to be woken with its answer: a shorter one is
# computed where it stands.
HOP_S: Final = 100e-6

# Larger batches gain nothing any more, and keep those who come later waiting.
BATCH_ROWS: Final = 4096

# What may wait where nobody says otherwise.
QUEUE_ROWS: Final = 100_000
QUEUE_BYTES: Final = 256 * 1024 * 1024


class Lane:
    """Runs the calls of one engine, `width` at a time. Safe to call from any thread.

    No delay is ever added: an idle lane begins at once, and on a loop of a web server at the end of the turn, when all
    that came with it is there. While it is busy, requests collect, and whoever is free next takes the oldest and
    with it all others that ask for the same outputs with rows of the same kind, up to a number of rows. A batch
    that fails is asked again in halves, so that a request that no engine can stand fails alone.

    Args:
        engine: a Router, or one that nothing is known of: its calls are never computed where they stand,
            unless the caller may block.
        workers: threads for what is not computed where it stands.
        admission: bounds what waits; shared by all lanes.
        permits: bound what computes; shared by all lanes, and by the threads that submit. Without them
            nothing is computed where it stands.
        width: calls at a time; more than one is for reentrant engines only.
        max_batch_rows: a batch grows no further; one request may be larger.
        hop_s: a call predicted to be shorter is computed on the thread that submits it.
        merges: the engine's answer for a row does not depend on the others, so that requests may be computed
            together, and one of many rows in slices.
        clock: seconds, of the deadlines.
        loop_here: what reads requests by turns on the calling thread, if anything does.
        observer: is told of what is computed together.
    """

    def __init__(
        self,
        engine: Engine,
        workers: Executor,
        admission: Admission | None = None,
        *,
        permits: Permits | None = None,
        width: int = 1,
        max_batch_rows: int = BATCH_ROWS,
        hop_s: float = HOP_S,
        merges: bool = False,
        clock: Callable[[], float] = time.monotonic,
        observer: Observer = NOBODY,
        loop_here: Callable[[], Turning | None] = lambda: None,
    ) -> None:
        self.calls = 0
        self.rows = 0
        self._engine = engine
        self._workers = workers
        self._admission = admission or Admission(QUEUE_ROWS, QUEUE_BYTES)
        self._permits = permits or _nothing_here(width)
        self._width = width
        self._max_batch_rows = max_batch_rows
        self._hop_s = hop_s
        self._merges = merges
        self._clock = clock
        self._observer = observer
        self._loop_here = loop_here
        # A router knows how long a call takes, and can keep to it; of any other engine nothing is known.
        self._seconds: Callable[[int, tuple[str, ...]], float] = getattr(engine, "seconds", lambda *_: math.inf)
        self._attempt: _Run = getattr(engine, "attempt", engine.run)
        self._lock = threading.Lock()
        # Requests that can be one batch, oldest first, and these groups in turn.
        self._groups: OrderedDict[Hashable, deque[Waiting]] = OrderedDict()
        # What came in this turn of the event loop.
        self._gathered: list[Waiting] = []
        # Calls under way. Each belongs to a thread, which looks for more when it is done: as long as
        # something waits, there is at least one.
        self._running = 0
        self._is_crowded = False

    def submit(self, request: InferRequest, deadline: Deadline = NEVER, *, may_block: bool = False) -> Future[Answer]:
        """Compute, or queue, `request`.

        The future fails with what the engine raises; with DeadlinePassed where the request was dropped,
        because its deadline was over, or cancelled, before it began; with Unavailable after the workers were
        stopped.

        Args:
            may_block: the calling thread would only wait for the answer, so it may compute itself, however long.

        Raises:
            Overloaded: too much waits; nothing was queued.
        """
        rows = request.rows.n_rows
        seconds = self._seconds(rows, request.outputs)
        answer: Future[Answer] | None = None
        # After a batch of several, more come at once: whoever began a long call alone would keep them
        # waiting, while a worker takes until then to wake up.
        if may_block and (seconds < self._hop_s or not self._is_crowded):
            answer = self._run_here(request, deadline, rows, self._engine.run)
        elif seconds < self._hop_s:
            answer = self._gather(request, deadline, rows) or self._run_here(request, deadline, rows, self._attempt)
        return answer or self._enqueue(Waiting(request, deadline, rows), seconds)

    def _gather(self, request: InferRequest, deadline: Deadline, rows: int) -> Future[Answer] | None:
        """On a loop: a future of the answer, which is computed at the end of this turn of it.

        So all short requests that were there when the turn began are computed together. None where this is no loop, or
        the lane is busy.
        """
        if not self._merges or (loop := self._loop_here()) is None:
            return None
        waiting = Waiting(request, deadline, rows)
        with self._lock:
            if self._groups or self._running >= self._width:
                return None
            self._gathered.append(waiting)
            is_first = len(self._gathered) == 1
        if is_first:
            loop.call_soon(self._end_turn)
        return waiting.future

    def _end_turn(self) -> None:
        """Compute what was gathered."""
        with self._lock:
            gathered, self._gathered = self._gathered, []
        answers: list[tuple[Waiting, Done[Answer] | None]] = [(waiting, None) for waiting in gathered]
        if self._begin_here(sum(waiting.rows for waiting in gathered)):
            try:
                batches = alike(gathered, self._max_batch_rows)
                answers = [answer for batch in batches for answer in self._together(batch)]
            finally:
                self._end_here()
        for waiting, answer in answers:
            if answer is None:
                # It was let in when the lane was idle, and that holds.
                self._enqueue(waiting, self._seconds(waiting.rows, waiting.request.outputs), is_let_in=True)
            elif (error := answer.exception()) is not None:
                waiting.future.set_exception(error)
            else:
                waiting.future.set_result(answer.result())

    def _together(self, batch: list[Waiting]) -> list[tuple[Waiting, Done[Answer] | None]]:
        """The answers to requests that can be one batch, each None where another thread is to find it."""
        now = self._clock()
        if len(batch) > 1 and not any(waiting.deadline.is_over(now) for waiting in batch):
            try:
                begun_at = time.perf_counter()
                merged = merge([waiting.request for waiting in batch])
                answers = merged.split(self._compute(self._attempt, merged.rows, batch[0].request.outputs, NEVER))
                done_at = time.perf_counter()
            except BaseException:  # whatever it is belongs to some of them, who are told when they are asked alone
                pass
            else:
                for waiting in batch:
                    waiting.note(begun_at, done_at)
                self._observer.batch(merged.rows.n_rows, len(batch))
                return [(waiting, Done(answer)) for waiting, answer in zip(batch, answers, strict=True)]
        return [(waiting, self._alone(waiting.request, waiting.deadline, self._attempt)) for waiting in batch]

    def _run_here(self, request: InferRequest, deadline: Deadline, rows: int, run: _Run) -> Done[Answer] | None:
        """The answer, or None where this thread may not compute now, or `run` takes longer than was thought."""
        if not self._begin_here(rows):
            return None
        try:
            return self._alone(request, deadline, run)
        finally:
            self._end_here()

    def _alone(self, request: InferRequest, deadline: Deadline, run: _Run) -> Done[Answer] | None:
        try:
            if deadline is not NEVER and deadline.is_over(self._clock()):
                return Done(exception=DeadlinePassed(deadline.seconds))
            timing = deadline.timing
            if timing is not None:
                timing.begun_at = time.perf_counter()
            answer = self._compute(run, request.rows, request.outputs, deadline)
            if timing is not None:
                timing.done_at = time.perf_counter()
            self._observer.batch(request.rows.n_rows, 1)
            return Done(answer)
        except CannotAnswer:
            return None
        except BaseException as error:  # SystemExit from a model too: it fails its own request only
            return Done(exception=error)

    def _begin_here(self, rows: int) -> bool:
        with self._lock:
            if self._groups or self._running >= self._width or not self._permits.try_take():
                return False
            self._running += 1
            self.calls += 1
            self.rows += rows
            return True

    def _end_here(self) -> None:
        self._permits.give()
        with self._lock:
            if not self._groups:
                self._running -= 1
                return
        # Somebody came meanwhile. This thread has its answer, and does not work for others.
        self._hand_over()

    def _enqueue(self, waiting: Waiting, seconds: float, *, is_let_in: bool = False) -> Future[Answer]:
        request = waiting.request
        key: Hashable = None
        if self._merges:
            key = waiting.key
            # Its share of the batch that it will be in, which is what the queue shrinks by.
            share = waiting.rows / self._max_batch_rows
            seconds = min(seconds, self._seconds(self._max_batch_rows, request.outputs) * share)
        waiting.size, waiting.seconds = size_bytes(request.rows), seconds if seconds < math.inf else 0.0
        self._admission.enter(waiting.rows, waiting.size, waiting.seconds, is_let_in=is_let_in)
        with self._lock:
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = deque()
            group.append(waiting)
            if self._running >= self._width:
                return waiting.future
            self._running += 1
        try:
            self._workers.submit(self._work)
        except RuntimeError:
            self._give_up()
        return waiting.future

    def _work(self) -> None:
        if not self._turn():
            self._hand_over()

    def _hand_over(self) -> None:
        """Let a worker go on, or go on here where workers are being stopped: what was accepted is finished."""
        try:
            self._workers.submit(self._work)
        except RuntimeError:
            while not self._turn():
                pass

    def _turn(self) -> bool:
        """Run batches. True: nothing waits, and this call is not under way any more. False: it is others' turn."""
        until = self._clock() + TURN_S
        for _ in range(TURNS):
            # First the permit, then the batch: who comes while this thread waits is still taken along.
            self._permits.take()
            try:
                batch = self._next()
                answers = self._run(batch)
            finally:
                self._permits.give()
            if not batch:
                return True
            self._complete(batch, answers)
            if self._clock() >= until:
                break
        return False

    def _next(self) -> list[Waiting]:
        """The next batch; empty where nothing waits, and then this call is not under way any more."""
        while True:
            with self._lock:
                if not self._groups:
                    self._running -= 1
                    return []
                batch, rows = self._take()
                self._is_crowded = len(batch) > 1
                self.calls += 1
                self.rows += rows
            self._admission.leave(
                rows, sum(waiting.size for waiting in batch), sum(waiting.seconds for waiting in batch), len(batch)
            )
            now = self._clock()
            if wanted := [waiting for waiting in batch if waiting.is_wanted(now)]:
                return wanted

    def _take(self) -> tuple[list[Waiting], int]:
        """The oldest request, and those that can be answered with it; and how many rows they are."""
        key, group = next(iter(self._groups.items()))
        batch = [group.popleft()]
        rows = batch[0].rows
        while self._merges and group and rows + group[0].rows <= self._max_batch_rows:
            batch.append(group.popleft())
            rows += batch[-1].rows
        if group:
            self._groups.move_to_end(key)
        else:
            del self._groups[key]
        return batch, rows

    def _run(self, batch: list[Waiting]) -> list[Answer] | BaseException:
        """An answer for each, or what the engine raised for all."""
        if not batch:
            return []
        try:
            begun_at = time.perf_counter()
            merged = merge([waiting.request for waiting in batch])
            self._observer.batch(merged.rows.n_rows, len(batch))
            # What was merged is wanted by somebody as long as it is one batch.
            deadline = batch[0].deadline if len(batch) == 1 else NEVER
            answers = self._compute(self._engine.run, merged.rows, batch[0].request.outputs, deadline)
            done_at = time.perf_counter()
            for waiting in batch:
                waiting.note(begun_at, done_at)
            self._admission.learn(self._seconds(merged.rows.n_rows, batch[0].request.outputs), done_at - begun_at)
            return [answers] if len(batch) == 1 else merged.split(answers)
        except BaseException as error:  # SystemExit from a model too: it fails its own request only
            return error

    def _compute(self, run: _Run, rows: Table, outputs: tuple[str, ...], deadline: Deadline) -> Answer:
        """What `run` answers, asked in slices where there are many rows and that makes no difference.

        Raises DeadlinePassed where the deadline is over before the last slice, beside what `run` raises.
        """
        if not self._merges or rows.n_rows <= SLICE_ROWS:
            return run(rows, outputs)

        def pause() -> None:
            # Whoever waits for the permit goes first, so that nobody waits longer than for a slice.
            self._permits.give()
            self._permits.take()
            if deadline.is_over(self._clock()):
                raise DeadlinePassed(deadline.seconds)

        return in_slices(run, rows, outputs, pause)

    def _complete(self, batch: list[Waiting], answers: list[Answer] | BaseException) -> None:
        if not isinstance(answers, BaseException):
            for waiting, answer in zip(batch, answers, strict=True):
                waiting.future.set_result(answer)
        elif len(batch) == 1:
            batch[0].future.set_exception(answers)
        else:
            # In halves rather than one by one: one bad request among 64 costs 12 calls, not 64.
            middle = len(batch) // 2
            for half in (batch[:middle], batch[middle:]):
                self._permits.take()
                try:
                    answers = self._run(half)
                finally:
                    self._permits.give()
                self._complete(half, answers)

    def _give_up(self) -> None:
        """The workers were stopped: fail what waits, unless a call is under way, whose thread will take it along."""
        with self._lock:
            self._running -= 1
            if self._running:
                return
            left = [waiting for group in self._groups.values() for waiting in group]
            self._groups.clear()
        for waiting in left:
            self._admission.leave(waiting.rows, waiting.size, waiting.seconds)
            waiting.future.set_exception(Unavailable("the service is stopping"))


def _nothing_here(width: int) -> Permits:
    permits = Permits(width)
    permits.close()
    return permits
