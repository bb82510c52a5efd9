"""Right answers, ranks, calibration and confusions, against figures worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from minivit.training.classify.scores import (
    class_scores,
    classes_table,
    escaped,
    most_confidently_wrong,
    most_confused,
)


def logits(*probabilities: list[float]) -> Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


def test_figures_worked_out_by_hand() -> None:
    """Confidences 0.9, 0.9, 0.6, 0.5 lie in bins 14, 14, 9, 8 of 15; right: yes, no, yes, no."""
    said = logits([0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.5, 0.5])
    scores = class_scores(said, torch.tensor([0, 1, 1, 1]))
    assert scores.top1 == 0.5 and scores.top5 is None
    assert scores.loss == pytest.approx(-sum(map(math.log, (0.9, 0.1, 0.6, 0.5))) / 4)
    assert scores.ece == pytest.approx((2 * abs(0.5 - 0.9) + abs(1 - 0.6) + abs(0 - 0.5)) / 4)
    assert scores.confusion.tolist() == [[1, 0], [2, 1]]
    assert scores.count.tolist() == [1, 3]
    assert scores.per_class.tolist() == pytest.approx([1.0, 1 / 3])


def test_an_edge_belongs_to_the_bin_below_it() -> None:
    """0.6 = 9 / 15 shares the bin of 0.56, where one right and one wrong balance out."""
    said = logits([0.6, 0.4], [0.44, 0.56])
    together = class_scores(said, torch.tensor([0, 0]))
    assert together.ece == pytest.approx(abs(1 - (0.6 + 0.56)) / 2)


def test_there_are_fifteen_bins() -> None:
    """Bin 10 is (0.6, 0.667]: 0.61 and 0.66 share it, 0.69 does not."""
    shared = logits([0.61, 0.39], [0.66, 0.34])
    assert class_scores(shared, torch.tensor([0, 1])).ece == pytest.approx(abs(1 - 1.27) / 2)
    parted = logits([0.61, 0.39], [0.69, 0.31])
    assert class_scores(parted, torch.tensor([0, 1])).ece == pytest.approx((0.39 + 0.69) / 2)


def test_one_of_five_by_rank_and_ties_as_argmax_takes_them() -> None:
    said = torch.zeros(8, 8)
    scores = class_scores(said, torch.arange(8))
    assert scores.top1 == 1 / 8  # argmax takes the first of equals
    assert scores.top5 == 5 / 8
    assert scores.confusion[:, 0].tolist() == [1] * 8
    assert class_scores(said[:, :5], torch.arange(8) % 5).top5 is None


def test_a_class_without_photos_has_no_accuracy() -> None:
    scores = class_scores(torch.eye(3)[[0, 2]], torch.tensor([0, 2]))
    assert scores.per_class[[0, 2]].tolist() == [1, 1] and scores.per_class[1].isnan()
    lines = classes_table(scores, ["cat", "a|b", "dog"]).splitlines()
    assert lines[-1].replace(" ", "") == "|a\\|b|–|0|"
    assert len({len(line) for line in lines}) == 1


def test_pairs_are_ordered_by_photos_and_then_by_share() -> None:
    truth = torch.tensor([0] * 4 + [1] * 2 + [2] * 3)
    said = torch.tensor([1, 1, 0, 0, 0, 1, 0, 0, 2])
    pairs = most_confused(class_scores(torch.eye(3)[said], truth), ["a", "b", "c"], 2)
    assert [tuple(pair) for pair in pairs] == [("c", "a", 2, 2 / 3), ("a", "b", 2, 0.5)]


def test_more_photos_come_before_a_larger_share_and_pairs_without_photos_never() -> None:
    truth = torch.tensor([0] * 10 + [1])
    said = torch.tensor([2] * 2 + [0] * 8 + [0])
    scores = class_scores(torch.eye(3)[said], truth)
    pairs = most_confused(scores, ["a", "b", "c"], 9)
    assert [tuple(pair) for pair in pairs] == [("a", "c", 2, 0.2), ("b", "a", 1, 1.0)]
    with pytest.raises(ValueError, match="4 names of classes, the scores are of 3"):
        most_confused(scores, ["a", "b", "c", "d"], 9)


def test_classes_are_listed_from_the_worst_on() -> None:
    truth, said = torch.tensor([0, 0, 1, 3, 3]), torch.tensor([0, 0, 0, 3, 0])
    table = classes_table(class_scores(torch.eye(4)[said], truth), ["a", "b", "c", "d"])
    rows = [line.replace(" ", "") for line in table.splitlines()[2:]]
    assert rows == ["|b|0.0%|1|", "|d|50.0%|2|", "|a|100.0%|2|", "|c|–|0|"]


def test_mistakes_are_ordered_by_how_sure_they_were() -> None:
    said = logits([0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.05, 0.95])
    labels = torch.tensor([0, 1, 0, 0])
    assert most_confidently_wrong(said, labels, 5) == [3, 2, 1]
    assert most_confidently_wrong(said, labels, 1) == [3]
    assert most_confidently_wrong(said[[1, 1, 1]], labels[[1, 1, 1]], 5) == [0, 1, 2]
    with pytest.raises(ValueError, match="label 2: expected 0 to 1"):
        most_confidently_wrong(said, labels + 1, 5)


def test_the_precision_of_the_logits_changes_no_count() -> None:
    said = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)).bfloat16()
    labels = torch.arange(50) % 7
    ours, other = class_scores(said, labels), class_scores(said.double(), labels)
    assert (ours.top1, ours.top5, ours.ece, ours.loss) == (
        other.top1, other.top5, other.ece, other.loss,
    )  # fmt: skip
    assert ours.top1 == int((said.argmax(1) == labels).sum()) / 50


@pytest.mark.parametrize(
    ("said", "labels", "words"),
    [
        (torch.zeros(2, 3), torch.zeros(3), r"logits \(2, 3\) and labels \(3,\)"),
        (torch.zeros(0, 3), torch.zeros(0), "one photo or more"),
        (torch.zeros(1, 3), torch.tensor([3]), "label 3: expected 0 to 2"),
        (torch.zeros(1, 3), torch.tensor([-1]), "label -1: expected 0 to 2"),
        (torch.tensor([[0.0, math.nan]]), torch.tensor([0]), "photo 0 are not finite"),
    ],
)
def test_impossible_input_is_refused(said: Tensor, labels: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        class_scores(said, labels)


def test_names_are_text_in_markdown() -> None:
    assert escaped("a|b_*\n<i>") == "a\\|b\\_\\* \\<i\\>"
    scores = class_scores(torch.eye(2), torch.arange(2))
    with pytest.raises(ValueError, match="3 names of classes, the scores are of 2"):
        classes_table(scores, ["a", "b", "c"])


def test_a_hundred_thousand_classes_take_no_table_of_all_pairs() -> None:
    """Such a table would have 80 GB."""
    num_classes = 100_002
    said = torch.zeros(3, num_classes)
    said[[0, 1, 2], [5, 7, 100_001]] = 1.0
    scores = class_scores(said, torch.tensor([5, 100_001, 100_001]))
    assert scores.top1 == pytest.approx(2 / 3) and int(scores.count[100_001]) == 2
    assert scores.pairs.tolist() == [[5, 5], [100_001, 7], [100_001, 100_001]]
    assert scores.pair_count.tolist() == [1, 1, 1]
    names = [str(number) for number in range(num_classes)]
    assert [tuple(pair) for pair in most_confused(scores, names, 5)] == [("100001", "7", 1, 0.5)]
    with pytest.raises(ValueError, match="a table of 100,002 × 100,002 confusions"):
        _ = scores.confusion
