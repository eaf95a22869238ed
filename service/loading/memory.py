"""What loading leaves behind: freed memory that the C library keeps for later."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import cast


def give_back() -> None:
    """Return freed memory to the system, where the C library can (glibc).

    Opening a forest of 116 000 nodes left 42 MB resident, of which 25 MB were what it had been read from.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        cast(Callable[[int], int], trim)(0)
