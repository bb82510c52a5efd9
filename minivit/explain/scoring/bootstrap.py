"""How far a mean over pictures can be trusted: intervals from resampled pictures (Efron 1979)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from torch import Tensor

RESAMPLES = 2000


class Estimate(NamedTuple):
    """A mean and its 95 % interval.

    Attributes:
        value: Mean over the pictures, and over draws where there are several.
        low: Percentile 2.5 of the resampled means.
        high: Percentile 97.5 of the resampled means.
    """

    value: float
    low: float
    high: float


def bootstrap(count: int, seed: int) -> Callable[[Tensor], Estimate]:
    """Makes a function that estimates means over the same `count` pictures.

    All values meet the same resamples of the pictures, so that the difference of two of them, given
    picture by picture, is estimated as a pair. Of several draws, draws are drawn as well.

    Args:
        count: Number of pictures.
        seed: Seed for the resamples.

    Returns:
        A function of values (pictures,) or (pictures, draws).
    """
    pictures = np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))

    def estimate(values: Tensor) -> Estimate:
        array = values.detach().double().cpu().numpy().reshape(count, -1)  # (pictures, draws)
        means = array[pictures].mean(axis=1)  # (pictures, draws) -> (resamples, draws)
        draws = np.random.default_rng(seed).integers(means.shape[1], size=means.shape)
        means = np.take_along_axis(means, draws, axis=1).mean(axis=1)  # (resamples,)
        low, high = np.percentile(means, (2.5, 97.5))
        return Estimate(float(array.mean()), float(low), float(high))

    return estimate
