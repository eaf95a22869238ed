from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from service.observability import share as module
from service.observability.counts import Counts
from service.observability.share import Ends, Share
from tests.faults.cases import fault

CALLS = "tandem_engine_calls_total"

# Another process, which counts what it is told to line by line, and says when others can see it.
_OTHER = f"""
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from service.observability.counts import Counts
from service.observability.share import Ends, Share
share, counts = Share(Path(sys.argv[1])), Counts()
for line in sys.stdin:
    counts.add("{CALLS}", ("onnx",), float(line))
    share.publish(counts, {{("tandem_queue_rows", ()): 7.0}})
    print("there", flush=True)
"""


class Other:
    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _OTHER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def count(self, amount: int) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(amount, file=self._process.stdin, flush=True)
        assert self._process.stdout.readline() == "there\n"

    def die(self) -> None:
        self._process.kill()
        self._process.communicate()


def counts_of(calls: float) -> Counts:
    counts = Counts()
    counts.add(CALLS, ("onnx",), calls)
    return counts


@pytest.fixture
def joined(tmp_path: Path) -> Iterator[Callable[[], Share]]:
    """Makes shares of one folder, and closes them after the test."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(Share(tmp_path)))


def seen(share: Share) -> tuple[float, int]:
    """The calls that all processes have counted, and how many of these live."""
    counts, gauges = share.collect()
    return counts.counters.get(CALLS, {}).get(("onnx",), 0.0), len(gauges)


def test_processes_see_each_others_figures(joined: Callable[[], Share]) -> None:
    one, two = joined(), joined()

    one.publish(counts_of(3), {("tandem_queue_rows", ()): 1.0})
    two.publish(counts_of(4), {})

    assert seen(one) == seen(two) == (7, 2)


def test_figures_that_are_published_again_take_the_place_of_the_former(joined: Callable[[], Share]) -> None:
    share = joined()

    share.publish(counts_of(3), {})
    share.publish(counts_of(5), {})

    assert seen(share) == (5, 1)


@fault("O06", sent="a process that is killed", expected="its counters stay in the sum, its gauges and files go")
def test_what_a_killed_process_counted_stays_and_its_files_go(tmp_path: Path, joined: Callable[[], Share]) -> None:
    share = joined()
    share.publish(counts_of(1), {})
    other = Other(tmp_path)
    try:
        other.count(10)
        assert seen(share) == (11, 2)
    finally:
        other.die()

    assert [seen(share) for _ in range(3)] == [(11, 1)] * 3
    assert len(list(tmp_path.iterdir())) == 4  # a lock and figures of this one, those of the dead, the folder's lock


@fault("O06", sent="many processes that come and go", expected="right sums, files of the living only")
def test_files_do_not_grow_with_the_processes_that_ever_were(tmp_path: Path, joined: Callable[[], Share]) -> None:
    share = joined()
    share.publish(counts_of(0), {})

    for _ in range(50):
        passing = joined()
        passing.publish(counts_of(1), {})
        passing.close()
        seen(share)

    assert seen(share) == (50, 1)
    assert len(list(tmp_path.iterdir())) == 4


def test_nothing_is_counted_twice_by_whoever_is_killed_while_it_clears_up(
    tmp_path: Path, joined: Callable[[], Share], monkeypatch: pytest.MonkeyPatch
) -> None:
    share = joined()
    share.publish(counts_of(1), {})
    passing = joined()
    passing.publish(counts_of(10), {})
    passing.close()

    def dies(path: Path, missing_ok: bool = False) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", dies)
        with pytest.raises(KeyboardInterrupt):
            share.collect()

    assert [seen(share) for _ in range(3)] == [(11, 1)] * 3


def test_figures_that_cannot_be_read_are_left_out_and_logged(
    tmp_path: Path, joined: Callable[[], Share], caplog: pytest.LogCaptureFixture
) -> None:
    one, two = joined(), joined()
    one.publish(counts_of(1), {})
    two.publish(counts_of(10), {})
    next(path for path in tmp_path.glob("*.json") if json.loads(path.read_bytes())["counters"][0][2] == 10).write_text(
        "{"
    )

    assert seen(one)[0] == 1
    assert "cannot be read" in caplog.text


def test_figures_are_replaced_as_a_whole(
    tmp_path: Path, joined: Callable[[], Share], monkeypatch: pytest.MonkeyPatch
) -> None:
    share = joined()
    share.publish(counts_of(1), {})

    def full(path: Path, content: bytes) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module.Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space"):
            share.publish(counts_of(2), {})

    assert seen(share) == (1, 1)
    assert not list(tmp_path.glob("*.tmp"))


def test_ends_of_other_processes_are_seen_by_all(tmp_path: Path, joined: Callable[[], Share]) -> None:
    share = joined()
    with closing(Ends(tmp_path)) as ends:
        ends("gpu")
        ends("gpu")

        counts, gauges = share.collect()

    assert counts.counters["tandem_device_restarts_total"] == {("gpu",): 2}
    assert not any(gauges)  # it is no web process, and has none


def test_without_a_folder_an_end_is_no_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(Ends(None)) as nobody, closing(Ends(tmp_path / "gone")) as gone:
        nobody("gpu")
        gone("gpu")

    assert "cannot be counted" in caplog.text
