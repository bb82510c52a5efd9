"""Where attention goes: sums of columns, for every kind of model and of token that looks."""

from __future__ import annotations

import pytest
import torch

from minivit.explain import mass_by_kind
from minivit.explain.describe.mass import token_kinds
from tests.explain.sharpened import VARIANTS, WIDE, make_images, make_model, untouched

COLUMNS = {  # written down by hand: first and last token of each kind, of 24 patches
    "class": {"class": (0, 0), "patches": (1, 24)},
    "registers": {"class": (0, 0), "registers": (1, 3), "patches": (4, 27)},
    "distilled": {
        "class": (0, 0),
        "distillation": (1, 1),
        "registers": (2, 2),
        "patches": (3, 26),
    },
    "mean": {"patches": (0, 23)},
}


@pytest.mark.parametrize("variant", COLUMNS)
def test_each_kind_gets_its_columns_from_the_rows_that_look(variant: str) -> None:
    model, images = make_model(variant), make_images(size=WIDE)
    _, attentions = model(images, return_attention=True)
    for looking, (first, last) in COLUMNS[variant].items():
        with untouched(model, images):
            mass = mass_by_kind(model, images, looking=looking)
        assert list(mass) == list(COLUMNS[variant])
        torch.testing.assert_close(sum(mass.values()), torch.ones(2, 2, 3).double())
        for kind, (low, high) in COLUMNS[variant].items():
            assert mass[kind].shape == (2, 2, 3) and not mass[kind].requires_grad
            for block, attention in enumerate(attentions):
                part = attention[:, :, first : last + 1, low : high + 1].detach()
                torch.testing.assert_close(mass[kind][:, block], part.sum(-1).mean(-1))


@pytest.mark.parametrize("variant", VARIANTS)
def test_kinds_cover_all_tokens_once(variant: str) -> None:
    model = make_model(variant)
    numbers = [number for tokens in token_kinds(model).values() for number in range(40)[tokens]]
    assert numbers == list(range(40))
    assert token_kinds(model)["patches"].start == model.num_prefix_tokens


def test_a_kind_that_is_not_there_is_refused() -> None:
    images = make_images()
    with pytest.raises(ValueError, match="looking is 'class': this model has patches"):
        mass_by_kind(make_model("mean"), images)
    with pytest.raises(ValueError, match="'registers': this model has class, patches"):
        mass_by_kind(make_model(), images, looking="registers")
