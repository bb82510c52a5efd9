"""Similarity of positions: what a figure of it may rely on."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from minivit import VisionTransformer, ViTConfig
from minivit.explain import position_scores, position_similarity

ROWS, COLS = 4, 6
VARIANTS = [
    {},
    {"num_register_tokens": 4},
    {"distillation_token": True},
    {"pos_embed_prefix": False, "num_register_tokens": 4},
    {"class_token": False, "pooling": "mean"},
    {"pos_embed": "sine"},
]


def make_model(**options: object) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(
        ViTConfig.from_name("debug_patch8_32", **({"image_size": (32, 48)} | options))
    )


@pytest.mark.parametrize("options", VARIANTS)
def test_it_is_symmetric_with_ones_on_the_diagonal(options: dict[str, object]) -> None:
    similarity = position_similarity(make_model(**options))
    assert similarity.shape == (ROWS, COLS, ROWS, COLS)
    assert not similarity.requires_grad
    torch.testing.assert_close(similarity, similarity.permute(2, 3, 0, 1))
    for row in range(ROWS):
        for col in range(COLS):
            assert similarity[row, col, row, col].item() == pytest.approx(1.0, abs=1e-6)
    assert similarity.abs().max() <= 1 + 1e-6


@pytest.mark.parametrize("options", VARIANTS[:-1])
def test_it_is_the_cosine_between_patches_without_the_prefix(options: dict[str, object]) -> None:
    model = make_model(**options)
    similarity = position_similarity(model)
    assert model.pos_embed is not None
    prefix = model.pos_embed.shape[1] - ROWS * COLS
    assert prefix == (
        model.config.class_token + model.config.distillation_token
        if model.config.pos_embed_prefix
        else 0
    )
    position = model.pos_embed.detach()[0, prefix:]
    for one, two in (((0, 0), (3, 5)), ((1, 4), (2, 0)), ((3, 1), (0, 5))):
        expected = F.cosine_similarity(
            position[one[0] * COLS + one[1]], position[two[0] * COLS + two[1]], dim=0
        )
        torch.testing.assert_close(similarity[one][two], expected)
    with torch.no_grad():
        model.pos_embed[:, :prefix] += 100.0
    assert torch.equal(position_similarity(model), similarity)


def test_the_length_of_an_embedding_does_not_matter() -> None:
    model = make_model()
    before = position_similarity(model)
    with torch.no_grad():
        model.pos_embed.mul_(torch.rand(1, 25, 1) + 0.5)  # type: ignore[union-attr]
    torch.testing.assert_close(position_similarity(model), before)


def test_neighbours_in_the_sine_embedding_are_alike() -> None:
    similarity = position_similarity(make_model(pos_embed="sine"))
    assert similarity[1, 1, 1, 2] > similarity[1, 1, 1, 4] > 0
    assert similarity[1, 1, 2, 1] > similarity[1, 1, 3, 4]
    torch.testing.assert_close(similarity[0, 0, 0, 2], similarity[3, 2, 3, 4])  # a step is a step
    torch.testing.assert_close(similarity[0, 0, 2, 0], similarity[1, 5, 3, 5])


def test_half_precision_weights_are_compared_in_single_precision() -> None:
    similarity = position_similarity(make_model().half())
    assert similarity.dtype == torch.float32
    assert similarity[2, 3, 2, 3].item() == pytest.approx(1.0, abs=1e-6)


# ---- scores --------------------------------------------------------------------------------------


def by_rule(rule: Callable[[int, int], float], rows: int = 4, cols: int = 7) -> torch.Tensor:
    """Similarities that depend on how many rows and columns lie between two places."""
    places = [(row, col) for row in range(rows) for col in range(cols)]
    values = [rule(abs(r - i), abs(c - j)) for r, c in places for i, j in places]
    return torch.tensor(values).view(rows, cols, rows, cols)


def test_a_disc_is_nearness_itself() -> None:
    scores = position_scores(by_rule(lambda down, right: 1 - 0.01 * math.hypot(down, right)))
    assert scores.neighbours == 1 and scores.rank_correlation == pytest.approx(1)


def test_a_cross_is_told_from_what_lies_beside_it() -> None:
    scores = position_scores(
        by_rule(
            lambda down, right: (
                1.0 if down == right == 0 else 0.6 * (down == 0) + 0.4 * (right == 0)
            )
        )
    )
    assert scores.same_row == pytest.approx(0.6) and scores.same_column == pytest.approx(0.4)
    assert scores.others == 0


def test_a_knight_is_no_neighbour() -> None:
    scores = position_scores(by_rule(lambda down, right: float((down, right) == (1, 2))))
    assert scores.neighbours == 0


def test_equal_values_share_their_rank() -> None:
    """By hand for one place in the corner of 2 x 2: others at distances 1, 1, √2."""
    similarity = torch.zeros(2, 2, 2, 2)
    similarity[0, 1, 0, 0] = similarity[0, 0, 0, 1] = 1.0
    similarity[1, 0, 1, 1] = similarity[1, 1, 1, 0] = 1.0
    # ranks of similarity 2, ½, ½ and of nearness 1½, 1½, 0, in each of the four corners
    similar, near = torch.tensor([2.0, 0.5, 0.5]) - 1, torch.tensor([1.5, 1.5, 0.0]) - 1
    expected = (similar @ near / (similar.norm() * near.norm())).item()
    assert position_scores(similarity).rank_correlation == pytest.approx(expected)


def test_sines_show_a_grid() -> None:
    scores = position_scores(position_similarity(make_model(pos_embed="sine")))
    assert scores.neighbours == 1 and scores.rank_correlation > 0.8
    assert min(scores.same_row, scores.same_column) > scores.others


def test_one_row_has_no_scores() -> None:
    with pytest.raises(ValueError, match="1 x 7 has no rows and columns"):
        position_scores(torch.ones(1, 7, 1, 7))
