"""How close two float32 results can be: a bound that comes from arithmetic, not from one machine.

Two correct programs round differently, and the same program does on another processor: wider
vectors add in another order. Both are near what float64 gives. So the distance of each from float64
is measured, and ours may be a few times as far from it as the other program's.
"""

from __future__ import annotations

import torch
from torch import Tensor

TIMES = 4.0  # seen: 1 to 2 with AVX-512, 1 to 3.4 with AVX2, for one attention head alone
TINY = 4.0  # units in the last place of the largest value, for results that agree by luck


def assert_rounded_alike(found: Tensor, stored: Tensor, exact: Tensor, *, atol: float) -> None:
    """Asserts that two float32 results are the same function, each with its own rounding.

    Args:
        found: Our result in float32.
        stored: The same by somebody else's code, in float32.
        exact: The same by our code in float64.
        atol: Greatest distance from `stored` to `exact`: that ours is the same function at all.
    """
    assert found.shape == stored.shape == exact.shape and exact.dtype == torch.float64
    theirs = float((stored - exact).abs().max())
    ours = float((found - exact).abs().max())
    assert theirs <= atol, f"the other implementation computes something else: {theirs:.2e} apart"
    smallest = TINY * torch.finfo(torch.float32).eps * float(exact.abs().max())
    bound = max(TIMES * theirs, smallest)
    assert ours <= bound, f"{ours:.2e} from exact arithmetic, the other implementation {theirs:.2e}"
