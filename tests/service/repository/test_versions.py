from __future__ import annotations

import pytest

from service.repository.versions import MOVES, State


def test_every_state_has_its_moves() -> None:
    assert set(MOVES) == set(State)


def test_every_state_but_the_first_can_be_reached() -> None:
    reached = {State.LOADING}.union(*MOVES.values())

    assert reached == set(State)


@pytest.mark.parametrize("state", [State.FAILED, State.GONE])
def test_nothing_follows_the_end(state: State) -> None:
    assert MOVES[state] == set()


def test_what_is_gone_was_drained_before() -> None:
    before = {state for state, following in MOVES.items() if State.GONE in following}

    assert before == {State.DRAINING}
