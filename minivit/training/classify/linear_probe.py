"""The accuracy of raw pixels without a network: a baseline that shows whether data is trivial."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from minivit.training.classify.data import LabelledImages


def linear_probe(
    train: LabelledImages,
    tests: Sequence[LabelledImages],
    *,
    num_classes: int,
    num_samples: int = 3000,
    penalties: tuple[float, ...] = (1.0, 10.0, 100.0, 1000.0, 10000.0),
) -> list[float]:
    """Accuracy of the best linear classifier of raw pixels, by ridge regression.

    Hoerl & Kennard 1970: weights W = Xᵀ (X Xᵀ + λ I)⁻¹ Y, for as many samples as fit in memory.
    The penalty is chosen on the test samples themselves, which can only flatter the baseline.

    Args:
        train: Samples to fit.
        tests: Sets of samples to classify.
        num_classes: Number of classes.
        num_samples: Largest number of training samples to use.
        penalties: Values of λ to try.

    Returns:
        Share of right answers on each test set, 0 to 1.
    """
    x = train.images[:num_samples].flatten(1).float() / 255  # (n, pixels)
    mean = x.mean(dim=0)
    x = x - mean
    y = F.one_hot(train.labels[:num_samples], num_classes).float()  # (n, classes)
    values, vectors = torch.linalg.eigh(x @ x.T)  # one decomposition serves all
    turned = vectors.T @ (y - y.mean(dim=0))
    solutions = [turned / (values.clamp(min=0) + penalty)[:, None] for penalty in penalties]
    accuracies = []
    for test in tests:
        similarity = (test.images.flatten(1).float() / 255 - mean) @ x.T  # (tests, n)
        projected = similarity @ vectors
        answers = [(projected @ each + y.mean(dim=0)).argmax(dim=1) for each in solutions]
        accuracies.append(max((answer == test.labels).float().mean().item() for answer in answers))
    return accuracies
