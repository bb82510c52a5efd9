"""The baseline of raw pixels: it learns what is linear in them, and nothing else."""

from __future__ import annotations

import torch

from minivit.training.classify.data import LabelledImages
from minivit.training.classify.linear_probe import linear_probe


def test_the_linear_probe_reads_what_is_linear_and_not_what_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (600, 3, 4, 4), generator=generator).to(torch.uint8)
    linear = (images[:, 0].float().mean((1, 2)) > 127.5).long()
    parity = (images[:, 0, 0, 0] % 2).long()

    def accuracies(labels: torch.Tensor) -> list[float]:
        """On the rest of the pictures, and on the same with all labels swapped."""
        train_set = LabelledImages(images[:500], labels[:500])
        tests = [LabelledImages(images[500:], each[500:]) for each in (labels, 1 - labels)]
        return linear_probe(train_set, tests, num_classes=2)

    right, swapped = accuracies(linear)
    assert right > 0.85
    assert swapped < 0.6
    assert max(accuracies(parity)) < 0.7
