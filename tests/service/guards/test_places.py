from __future__ import annotations

import pytest

from service.core.errors import Overloaded, RateLimited
from service.guards.places import Places


class Holder:
    pass


def test_places_are_taken_until_none_is_left() -> None:
    places = Places(2)
    held = [Holder(), Holder()]
    for holder in held:
        places.take(holder, "shop")

    with pytest.raises(Overloaded, match="2 streams are open, and no more may be"):
        places.take(Holder(), "other")

    assert places.taken == 2


def test_who_leaves_makes_room_and_may_leave_again() -> None:
    places = Places(1)
    holder = Holder()
    places.take(holder, "shop")

    places.leave(holder)
    places.leave(holder)

    places.take(Holder(), "other")
    assert places.taken == 1


def test_one_caller_holds_no_more_than_its_share() -> None:
    places = Places(3, 1)
    holder = Holder()
    places.take(holder, "shop")

    with pytest.raises(RateLimited, match="1 streams of this caller") as refusal:
        places.take(Holder(), "shop")
    places.take(Holder(), "other")
    places.leave(holder)
    places.take(Holder(), "shop")

    assert refusal.value.retry_after_s == 1


def test_forked_child_holds_nothing() -> None:
    places = Places(1)
    places.take(Holder(), "shop")

    places.forget()

    places.take(Holder(), "shop")
