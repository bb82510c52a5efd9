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

    def accuracy(labels: torch.Tensor) -> float:
        train_set = LabelledImages(images[:500], labels[:500])
        return linear_probe(train_set, LabelledImages(images[500:], labels[500:]), num_classes=2)

    assert accuracy(linear) > 0.85
    assert accuracy(parity) < 0.7
