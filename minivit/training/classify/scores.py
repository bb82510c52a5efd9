"""How good a classifier is: right answers, their calibration, and which classes are confused.

A photo is right exactly when `argmax` of its logits is its label. Where several classes share the
highest logit, as happens in bfloat16, `argmax` takes the first; ranks follow the same rule, so that
top-1 is the share of rank 0 and top-5 that of ranks 0 to 4.

Expected calibration error: Guo et al. 2017, "On Calibration of Modern Neural Networks"
(arXiv:1706.04599), equations 2, 3 and 5, with the bins ((m - 1) / 15, m / 15] of confidence::

    ECE = Σₘ |Bₘ| / n · |acc(Bₘ) - conf(Bₘ)|

Everything is computed in float64 on the CPU, from logits of any precision and device.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from minivit.plain_text import visible

NUM_BINS = 15  # of confidence, as in the paper
MOST_IN_A_TABLE = 2048  # classes: beyond, a figure of all pairs has cells that nobody can see
_MARKS = re.compile(r"([\\`*_{}\[\]<>|~#&$])")


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassScores:
    """The figures of n photos of K classes.

    Attributes:
        top1: Share of photos whose best class is right, 0 to 1.
        top5: Share of photos whose class is among the best five; None for five classes or fewer,
            where it would say nothing.
        loss: Mean cross-entropy in nats.
        ece: Expected calibration error, 0 to 1.
        per_class: (K,) float64, share of right photos of each class; NaN where it has no photo.
        count: (K,) int64, photos of each class.
        pairs: (P, 2) int64, the [truth, answer] that have photos, in order.
        pair_count: (P,) int64, photos of each pair.
    """

    top1: float
    top5: float | None
    loss: float
    ece: float
    per_class: Tensor
    count: Tensor
    pairs: Tensor
    pair_count: Tensor

    @property
    def confusion(self) -> Tensor:
        """(K, K) int64, photos by [truth, answer].

        Raises:
            ValueError: More than `MOST_IN_A_TABLE` classes; 100,000 would take 80 GB.
        """
        num_classes = len(self.count)
        if num_classes > MOST_IN_A_TABLE:
            raise ValueError(
                f"a table of {num_classes:,} × {num_classes:,} confusions, expected "
                f"{MOST_IN_A_TABLE:,} classes at most: look at pairs"
            )
        table = torch.zeros(num_classes, num_classes, dtype=torch.long)
        table[self.pairs[:, 0], self.pairs[:, 1]] = self.pair_count
        return table


class Confusion(NamedTuple):
    """Photos of one class that got another as their answer.

    Attributes:
        truth: Class of the photos.
        answer: Class that the model chose.
        photos: Number of these photos.
        share: Their share of the photos of the class, 0 to 1.
    """

    truth: str
    answer: str
    photos: int
    share: float


def class_scores(logits: Tensor, labels: Tensor) -> ClassScores:
    """All figures of a set of photos.

    Args:
        logits: (n, K), finite.
        labels: (n,), whole numbers from 0 to K - 1.

    Raises:
        ValueError: Other shapes, no photo, labels out of range, or logits that are not finite.
    """
    logits, labels = _checked(logits, labels)
    (n, num_classes), rows = logits.shape, torch.arange(len(labels))
    answers = logits.argmax(dim=1)
    right = answers == labels
    log_probs = logits.log_softmax(dim=1)

    both = torch.stack([labels, answers], dim=1)  # (n, 2)
    pairs, pair_count = torch.unique(both, dim=0, return_counts=True)  # (P, 2), (P,)
    count = labels.bincount(minlength=num_classes)
    num_right = labels[right].bincount(minlength=num_classes)
    return ClassScores(
        top1=int(right.sum()) / n,
        top5=int((_rank(logits, labels) < 5).sum()) / n if num_classes > 5 else None,
        loss=-float(log_probs[rows, labels].mean()),
        ece=_calibration_error(log_probs[rows, answers].exp(), right),
        per_class=num_right.double() / count,  # 0 / 0 is NaN
        count=count,
        pairs=pairs,
        pair_count=pair_count,
    )


def most_confused(
    scores: ClassScores, class_names: Sequence[str], num_pairs: int
) -> list[Confusion]:
    """The pairs (truth, answer) that differ and have photos, most photos first.

    Of pairs with equally many photos the one with the larger share of its class comes first, then
    the one whose classes come first.

    Args:
        scores: Result of `class_scores`.
        class_names: Names of the K classes.
        num_pairs: Largest number of pairs.
    """
    _require_names(scores, class_names)
    pairs = [
        Confusion(
            class_names[truth], class_names[answer], photos, photos / int(scores.count[truth])
        )
        for (truth, answer), photos in zip(
            scores.pairs.tolist(), scores.pair_count.tolist(), strict=True
        )
        if answer != truth
    ]
    return sorted(pairs, key=lambda pair: (-pair.photos, -pair.share))[:num_pairs]


def most_confidently_wrong(logits: Tensor, labels: Tensor, num_photos: int) -> list[int]:
    """Indices of photos whose best class is wrong, by its probability, the highest first.

    Args:
        logits: (n, K), finite.
        labels: (n,), whole numbers from 0 to K - 1.
        num_photos: Largest number of photos.

    Raises:
        ValueError: As `class_scores`.
    """
    logits, labels = _checked(logits, labels)
    best = logits.log_softmax(dim=1).amax(dim=1)
    wrong = (logits.argmax(dim=1) != labels).nonzero().flatten()  # (wrong,)
    order = best[wrong].argsort(descending=True, stable=True)
    chosen: list[int] = wrong[order][:num_photos].tolist()
    return chosen


def summary(scores: ClassScores) -> str:
    """One line of figures."""
    top5 = "" if scores.top5 is None else f", {100 * scores.top5:.2f} % among the first five"
    chance = 100 / len(scores.count)
    return (
        f"{100 * scores.top1:.2f} % right{top5} (chance {chance:.1f} %), cross-entropy "
        f"{scores.loss:.3f}, expected calibration error {100 * scores.ece:.1f} %"
    )


def classes_table(scores: ClassScores, class_names: Sequence[str]) -> str:
    """The accuracy of each class as a table in markdown: the worst first, without photos last.

    Args:
        scores: Result of `class_scores`.
        class_names: Names of the K classes.
    """
    _require_names(scores, class_names)
    accuracies, counts = scores.per_class.tolist(), scores.count.tolist()
    order = sorted(range(len(counts)), key=lambda k: accuracies[k] if counts[k] else 2.0)
    rows = [("class", "right", "photos")]
    for k in order:
        accuracy = f"{100 * accuracies[k]:.1f} %" if counts[k] else "–"
        rows.append((escaped(class_names[k]), accuracy, f"{counts[k]:,}"))
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"| {a.ljust(wide[0])} | {b.rjust(wide[1])} | {c.rjust(wide[2])} |" for a, b, c in rows
    ]
    rule = f"| {'-' * wide[0]} | {'-' * (wide[1] - 1)}: | {'-' * (wide[2] - 1)}: |"
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def escaped(text: str) -> str:
    """A text in one line that markdown shows literally, also in a cell of a table."""
    return _MARKS.sub(r"\\\1", visible(" ".join(text.split())))


def _checked(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(n, K) float64 and (n,) int64 on the CPU."""
    if logits.dim() != 2 or labels.shape != logits.shape[:1] or not logits.numel():
        raise ValueError(
            f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)}: expected (n, classes) "
            "and (n,), one photo or more"
        )
    logits, labels = logits.detach().cpu().double(), labels.cpu().long()
    if not logits.isfinite().all():
        index = int((~logits.isfinite().all(dim=1)).nonzero()[0])
        raise ValueError(f"logits of photo {index} are not finite; the weights are damaged")
    outside = (labels < 0) | (labels >= logits.shape[1])
    if outside.any():
        raise ValueError(
            f"label {int(labels[outside][0])}: expected 0 to {logits.shape[1] - 1}, there are "
            f"{logits.shape[1]} logits a photo"
        )
    return logits, labels


def _rank(logits: Tensor, labels: Tensor) -> Tensor:
    """(n,): number of classes before the right one: larger logits, or equal ones and earlier."""
    own = logits.gather(1, labels[:, None])  # (n, 1)
    earlier = torch.arange(logits.shape[1]) < labels[:, None]  # (n, K)
    return ((logits > own) | ((logits == own) & earlier)).sum(dim=1)


def _calibration_error(confidence: Tensor, right: Tensor) -> float:
    """The equation above; both (n,), right is a Boolean."""
    edges = torch.linspace(0, 1, NUM_BINS + 1, dtype=torch.float64)[1:-1]
    bins = torch.bucketize(confidence, edges)  # edge m belongs to the bin below it
    gaps = torch.zeros(NUM_BINS, dtype=torch.float64)
    gaps.index_add_(0, bins, right.double() - confidence)  # |B| (acc - conf) of each bin
    return float(gaps.abs().sum()) / len(confidence)


def _require_names(scores: ClassScores, class_names: Sequence[str]) -> None:
    if len(class_names) != len(scores.count):
        raise ValueError(
            f"{len(class_names)} names of classes, the scores are of {len(scores.count)}"
        )
