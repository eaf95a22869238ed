"""The process that owns a device and runs engines for everybody else: `python -m service.device.host`.

It is started by `runtimes/device_process.py`, never by hand and never by fork. Web processes reach it over a
local socket; the rows of all of them meet in one lane per engine. It ends, and frees the device, when the process
that started it does. It hosts any engine its opener can open, on a GPU or not, so a model that crashes can be kept
apart as well.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import logging
import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NoReturn

from service.core.deadline import Deadline
from service.core.errors import DeadlinePassed, TandemError
from service.core.messages import InferRequest
from service.core.table import Values
from service.device.engines import Engines, OpenEngine
from service.device.guard import Watch
from service.observability.logs import configure_logs
from service.observability.stray import catch_strays
from service.runtimes.channel import Channel, ChannelClosed, Garbage, Message
from service.runtimes.device_errors import DeviceUnavailable, pack_error
from service.runtimes.device_process import BEAT, BEAT_S, READY, Exit, remove_folder
from service.runtimes.wire import Packing, WireError, pack_answers, unpack_table
from service.scheduling.workers import Workers

_log = logging.getLogger("tandem.device")


class Desk:
    """Answers one connection until it ends."""

    def __init__(self, channel: Channel, engines: Engines) -> None:
        self._channel = channel
        self._engines = engines

    def serve(self) -> None:
        try:
            self._channel.send({"hello": os.getpid()})
            while True:
                message, block = self._channel.receive()
                self._take(message, block)
        except ChannelClosed:
            pass
        except (Garbage, WireError, LookupError, TypeError, ValueError) as error:
            _log.error("a connection was dropped: it sent what is no message (%s)", error)
        finally:
            self._channel.close()
            self._engines.let_go(self)

    def _take(self, message: Message, block: memoryview) -> None:
        match message["ask"]:
            case "run":
                self._run(message, block)
            case "open":
                # Loading can take long, and others ask over the same connection meanwhile.
                arguments = (int(message["id"]), dict(message["spec"]))
                threading.Thread(target=self._open, args=arguments, name="open", daemon=True).start()
            case "close":
                self._engines.let_go(self, str(message["engine"]))
            case _:
                raise Garbage("an unknown question")

    def _open(self, number: int, spec: dict[str, Any]) -> None:
        try:
            key = self._engines.open(spec, self)
        except BaseException as error:
            self._refuse(number, None, error)
        else:
            self._reply({"id": number, "engine": key}, None, Packing())

    def _run(self, message: Message, block: memoryview) -> None:
        number, place = int(message["id"]), message.get("block")
        outputs = tuple(map(str, message["outputs"]))
        request = InferRequest(unpack_table(message["rows"], block), outputs)
        deadline = Deadline.after(float(message["within_s"]))
        try:
            hosted = self._engines.get(str(message["engine"]))
            # While more can be read, read: it joins the batch that waits.
            stays = hosted.engine.is_short(request.rows.n_rows) and not self._channel.has_more()
            answers = hosted.lane.submit(request, deadline, may_block=stays)
        except TandemError as error:
            self._refuse(number, place, error)
        else:
            answers.add_done_callback(lambda done: self._answer(number, place, done))

    def _answer(self, number: int, place: int | None, done: Future[dict[str, Values]]) -> None:
        error = done.exception()
        if error is None:
            packing = Packing()
            try:
                return self._reply({"id": number, "answers": pack_answers(packing, done.result())}, place, packing)
            except WireError as refusal:
                error = refusal
        if not isinstance(error, TandemError):
            _log.error("an engine failed", exc_info=error)
        elif error.__cause__ is not None:
            _log.warning("an engine failed: %s (%r)", error, error.__cause__)
        return self._refuse(number, place, error)

    def _refuse(self, number: int, place: int | None, error: BaseException) -> None:
        if isinstance(error, DeadlinePassed):
            error = DeviceUnavailable("the device was busy for too long")
        packing = Packing()
        try:
            self._reply({"id": number, "error": pack_error(packing, error)}, place, packing)
        except WireError:
            _log.exception("an error that cannot travel")
            self._reply({"id": number, "error": {"kind": "ModelFailed", "detail": ""}}, None, Packing())

    def _reply(self, message: Message, place: int | None, packing: Packing) -> None:
        try:
            self._channel.answer_in(place, message, packing)
        except ChannelClosed:
            _log.info("nobody takes an answer any more")


def serve(listener: socket.socket, engines: Engines) -> NoReturn:
    """Accept connections for ever."""
    while True:
        connection, _ = listener.accept()
        desk = Desk(Channel(connection), engines)
        threading.Thread(target=desk.serve, name="connection", daemon=True).start()


def beat(lifeline: socket.socket, watches: Sequence[Watch], hang_s: float, leave: Callable[[Exit], object]) -> object:
    """Tell the parent that Python still runs here, until the parent or a call is past hope.

    A call that keeps the interpreter lock stops this thread, too. Then the parent notices the silence; and should
    there be no parent any more, the kernel's own timer ends the process, for which no Python need run.
    """
    lifeline.setblocking(False)
    while True:
        signal.setitimer(signal.ITIMER_REAL, hang_s)
        try:
            lifeline.send(BEAT)
        except BlockingIOError:
            pass  # a parent that is stopped, or busy: it is there
        except OSError:
            return leave(Exit.PARENT_GONE)
        if any(watch.is_past_hope() for watch in watches):
            return leave(Exit.CALL_HUNG)
        readable, _, _ = select.select([lifeline], [], [], BEAT_S)
        if readable:  # it never says anything, so this is its end
            return leave(Exit.PARENT_GONE)


def prepare_gpu() -> None:
    """Give all libraries one pool of device memory, before any of them allocates, and start CUDA.

    Source: RMM's documentation on memory resources: the resource must be set before the first allocation.
    """
    rmm: Any = importlib.import_module("rmm")
    rmm.mr.set_current_device_resource(rmm.mr.CudaAsyncMemoryResource())
    cupy: Any = importlib.import_module("cupy")
    cupy.cuda.set_allocator(importlib.import_module("rmm.allocators.cupy").rmm_cupy_allocator)
    cupy.arange(8).sum()


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    options = _options(arguments)
    # The terminal's Ctrl-C and a service manager's SIGTERM reach the whole group; the web processes still drain then.
    # This process ends when its parent does.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable()  # a library that crashes says where
    configure_logs(options.log_format, options.log_level)
    if options.log_format == "json":
        catch_strays()
    listener = socket.socket(fileno=options.listener)
    lifeline = socket.socket(fileno=options.lifeline)
    folder = Path(listener.getsockname()).parent

    def leave(why: Exit) -> NoReturn:
        if why is Exit.PARENT_GONE:
            remove_folder(folder)  # nobody else is left to do it
        else:
            _log.error("the device's process gives itself up: %s", why.name.lower().replace("_", " "))
        os._exit(why)

    def poisoned(error: BaseException) -> NoReturn:
        _log.critical("a CUDA error that only a new process recovers from", exc_info=error)
        leave(Exit.STICKY_ERROR)

    signal.setitimer(signal.ITIMER_REAL, options.start_limit_s)  # until the beat takes it over
    calls, opens = Watch(options.call_limit_s), Watch(options.open_limit_s)
    if options.gpu:
        prepare_gpu()
    module, _, name = options.opener.partition(":")
    open_engine: OpenEngine = getattr(importlib.import_module(module), name)
    workers = Workers(options.threads)
    workers.start()
    engines = Engines(open_engine, workers, calls, opens, poisoned)
    try:
        lifeline.sendall(READY)
    except OSError:
        leave(Exit.PARENT_GONE)
    pulse = (lifeline, (calls, opens), options.hang_s, leave)
    threading.Thread(target=beat, args=pulse, name="beat", daemon=True).start()
    serve(listener, engines)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="service.device.host", description="internal: hosts engines for a service")
    parser.add_argument("--opener", required=True, help="package.module:function that opens an engine")
    parser.add_argument("--listener", type=int, required=True, help="descriptor of the listening socket")
    parser.add_argument("--lifeline", type=int, required=True, help="descriptor of the socket to the parent")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--start-limit-s", type=float, required=True)
    parser.add_argument("--call-limit-s", type=float, required=True)
    parser.add_argument("--open-limit-s", type=float, required=True)
    parser.add_argument("--hang-s", type=float, required=True)
    parser.add_argument("--log-format", choices=("json", "console"), default="json")
    parser.add_argument("--log-level", default="info")
    parser.add_argument("--gpu", action="store_true")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
