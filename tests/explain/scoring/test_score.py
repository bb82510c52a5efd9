"""Scores of methods: planted maps get what was planted, beside what knows nothing."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import minivit
from minivit.data.photos.masks import Cells
from minivit.explain import Example, MethodScores, scores
from minivit.explain.methods.attended import attention
from minivit.explain.scoring.bootstrap import bootstrap
from minivit.explain.scoring.measured import Measured, assembled
from minivit.explain.scoring.rank_correlation import rank_correlation
from minivit.explain.scoring.removal import removal
from minivit.explain.scoring.score import BASELINES, chosen_on_the_other_half, usable_methods
from minivit.explain.scoring.score_rows import score_rows
from minivit.explain.scoring.truth import against_truth
from minivit.explain.scoring.untrained import before_training, randomised
from minivit.vit import VisionTransformer
from tests.explain.scored_models import sharp

COUNT = 6


@pytest.fixture(scope="module")
def data() -> list[Example]:
    """Bright objects of 1 x 2 cells on noise, 3:2 pictures of two sizes."""
    generator = torch.Generator().manual_seed(0)
    examples = []
    for number in range(COUNT):
        rows, cols = (4, 6) if number < 4 else (6, 4)
        image = torch.randn(3, 8 * rows, 8 * cols, generator=generator)
        share = torch.zeros(rows, cols)
        share[number % rows, 1:3] = 1
        image += 9 * share.repeat_interleave(8, 0).repeat_interleave(8, 1)
        examples.append(Example(image, Cells(share, torch.ones_like(share))))
    return examples


def bright(model: VisionTransformer, images: Tensor, target: object = None) -> Tensor:
    return torch.nn.functional.avg_pool2d(images.mean(dim=1), 8)


def dark(model: VisionTransformer, images: Tensor, target: object = None) -> Tensor:
    return 9 - bright(model, images)


def by_name(rows: list[MethodScores]) -> dict[str, MethodScores]:
    return {row.name: row for row in rows}


@pytest.fixture(scope="module")
def rows(data: list[Example]) -> dict[str, MethodScores]:
    methods = {"bright": bright, "dark": dark, "attention": attention}
    return by_name(
        scores(sharp(), data, methods, heads=-1, probes=3, draws=2, points=4, batch_size=3)
    )


def test_rows_come_in_order_with_heads_and_baselines(rows: dict[str, MethodScores]) -> None:
    heads = [f"attention, block 2, head {head}" for head in range(2)]
    chosen = "attention, block 2, the head chosen on the other half"
    assert list(rows) == ["bright", "dark", "attention", *heads, chosen, *BASELINES]
    for row in rows.values():
        assert (row.pictures, row.probed) == (COUNT, 3)
        json.dumps(row.to_dict(), allow_nan=False)
        assert list(row.agreement) == list(rows)
        assert row.agreement[row.name] == pytest.approx(1)
        assert len(row.deletion_curve) == len(row.insertion_curve) == 5
        assert list(row.steps) == ["head", "block 2", "block 1", "block 0", "embeddings"]


def test_a_planted_map_points_and_its_reverse_is_below_chance(
    rows: dict[str, MethodScores],
) -> None:
    area = 2 / 24
    bright, dark = rows["bright"], rows["dark"]
    assert bright.pointing == bright.precision == (1, 1, 1)
    assert bright.mass is not None and bright.mass.value > 0.9
    assert dark.pointing == (0, 0, 0)
    assert dark.mass is not None and dark.mass.high < area
    assert {"pointing", "mass", "precision"} <= set(dark.below_chance)
    assert not {"pointing", "mass", "precision"} & set(bright.below_chance)
    assert all(estimate.value == pytest.approx(area) for estimate in dark.chance.values())
    assert bright.agreement["dark"] == pytest.approx(-1)
    for name in ("bright", *BASELINES):  # which do not look at the model
        row = rows[name]
        assert row.untrained["mass"].value == pytest.approx(row.mass.value)  # type: ignore[union-attr]
        assert all(step.value == pytest.approx(1) for step in row.steps.values()), name


@pytest.mark.parametrize(
    ("mass", "area", "below"),
    [
        ([-2, -1, -1, -2, -1, -1, -2, -1], 0, {"mass"}),  # less than chance on every picture
        ([-2, 1, -1, 1, -1, 1, -1, 1], 0, set()),  # less in the mean, but not by the interval
        ([2, 1, 1, 2, 1, 1, 2, 1], 0, set()),
        ([1] * 8, 0.5, {"deletion"}),  # the class stays longer than with the random map
        ([1] * 8, -0.5, {"insertion"}),  # it comes back later
    ],
)
def test_below_chance_is_what_falls_short_by_its_whole_interval(
    mass: list[float], area: float, below: set[str]
) -> None:
    def planted(mass: Tensor, area: float) -> Measured:
        truth = {"pointing": torch.ones(8), "mass": mass, "precision": torch.ones(8)}
        probes = {
            "deletion": torch.ones(8, 2),
            "insertion": torch.ones(8, 2),
            "deletion_area": torch.full((8,), 1 + area),
            "insertion_area": torch.full((8,), 1 + area),
            "steps": torch.ones(8, 1),
        }
        untrained = {name: values[:, None] for name, values in truth.items()}
        return Measured([torch.rand(2, 3) for _ in range(8)], truth, untrained, probes)

    chance = torch.full((8,), 0.5)
    measured = {
        "planted": planted(0.5 + torch.tensor(mass) / 10, area),
        "random": planted(chance, 0),
    }
    chances = dict.fromkeys(("pointing", "mass", "precision"), chance)
    rows = score_rows(measured, chances, ["head"], 8, 8, 0)
    assert set(rows[0].below_chance) == below and not rows[1].below_chance


def test_of_few_pictures_nothing_is_said_to_be_below_chance(data: list[Example]) -> None:
    few, enough = (
        scores(sharp(), data[:count], {"dark": dark}, probes=count, draws=1, points=1)[0]
        for count in (COUNT - 1, COUNT)
    )
    assert few.pointing == enough.pointing == (0, 0, 0)
    assert not few.below_chance and "pointing" in enough.below_chance


def test_figures_are_those_of_each_picture_by_itself(
    rows: dict[str, MethodScores], data: list[Example]
) -> None:
    """Beside a loop over pictures that calls what the other tests have checked."""
    model, row = sharp(), rows["attention"]
    truths, untrained, probed = [], [], []
    for example in data:
        images = example.image[None]
        cells = Cells(*(part[None] for part in example.cells or ()))
        made = attention(model, images)
        truths.append(torch.cat(list(against_truth(made, cells))))
        draws = [attention(before_training(model, seed), images) for seed in (0, 1)]
        untrained.append(torch.stack([torch.cat(list(against_truth(m, cells))) for m in draws]))
    expected = torch.stack(truths).mean(dim=0).tolist()
    measured = [row.pointing, row.mass, row.precision]
    assert [each.value for each in measured if each] == pytest.approx(expected, abs=1e-5)
    expected = torch.stack(untrained).mean(dim=(0, 1)).tolist()
    names = ("pointing", "mass", "precision")
    assert [row.untrained[name].value for name in names] == pytest.approx(expected, abs=1e-5)
    for number in (0, 2, 4):
        images = data[number].image[None]
        target = model(images).argmax(dim=1)
        made = attention(model, images)
        result = removal(model, images, made, target, points=4)
        steps = [
            rank_correlation(made, attention(changed, images))
            for _, changed in randomised(model, 0)
        ]
        probed.append([*result.deletion[0].tolist(), *torch.cat(steps).tolist()])
    expected = np.mean(probed, axis=0).tolist()
    curve = [*row.deletion_curve, *(step.value for step in row.steps.values())]
    assert curve == pytest.approx(expected, abs=1e-4)


def test_agreement_is_the_mean_over_pictures_of_all_sizes(
    rows: dict[str, MethodScores], data: list[Example]
) -> None:
    model = sharp()
    pairs = [(attention(model, each.image[None]), bright(model, each.image[None])) for each in data]
    expected = float(torch.cat([rank_correlation(*pair) for pair in pairs]).mean())
    assert rows["attention"].agreement["bright"] == pytest.approx(expected, abs=1e-6)
    assert rows["bright"].agreement["attention"] == pytest.approx(expected, abs=1e-6)


def test_a_head_is_chosen_on_pictures_on_which_it_is_not_scored() -> None:
    """Each head is right on one half only: the one that is chosen is wrong on its own half."""
    halves = torch.from_numpy(np.random.default_rng(5).permutation(COUNT)).tensor_split(2)
    mass = torch.zeros(COUNT, 2)
    mass[halves[0], 0], mass[halves[1], 1] = 1, 1
    choice, heads = chosen_on_the_other_half(mass, 5)
    assert heads == [1, 0]
    assert not mass.gather(1, choice[:, None]).any()


def test_the_row_of_the_chosen_head_is_put_together_of_heads(
    rows: dict[str, MethodScores], data: list[Example]
) -> None:
    model = sharp()
    mass = torch.zeros(COUNT, 2)
    for number, example in enumerate(data):
        cells = Cells(*(part[None] for part in example.cells or ()))
        for head in range(2):
            made = attention(model, example.image[None], head=head)
            mass[number, head] = against_truth(made, cells).mass
    choice, _ = chosen_on_the_other_half(mass, 0)
    chosen = rows["attention, block 2, the head chosen on the other half"]
    expected = mass.gather(1, choice[:, None]).mean()
    assert chosen.mass is not None and chosen.mass.value == pytest.approx(float(expected), abs=1e-5)


def test_an_assembled_row_takes_each_picture_from_its_source() -> None:
    def source(number: float) -> Measured:
        def numbers(*shape: int) -> Tensor:
            return 10 * torch.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1)) + torch.full(
                shape, number
            )

        return Measured(
            [torch.full((1, 1), 10 * picture + number) for picture in range(4)],
            {"mass": numbers(4)},
            {"mass": numbers(4, 2)},
            {"deletion": numbers(2, 3)},
        )

    made = assembled([source(1), source(2)], choice=[0, 1, 1, 0], probed=[0, 2])
    assert [int(each) for each in made.maps] == [1, 12, 22, 31]
    assert made.truth["mass"].tolist() == [1, 12, 22, 31]
    assert made.untrained["mass"][:, 1].tolist() == [1, 12, 22, 31]
    assert made.probes["deletion"][:, 2].tolist() == [1, 12]  # the second that was probed


def test_a_method_of_chance_gets_the_seed_and_rows_do_not_depend_on_the_batch(
    data: list[Example],
) -> None:
    seeds: list[int] = []

    def lucky(model: object, images: Tensor, target: object = None, *, seed: int = 0) -> Tensor:
        seeds.append(seed)
        return torch.rand(len(images), 4, 6)

    scores(sharp(), data[:2], {"lucky": lucky}, seed=7, probes=1, draws=1, points=1)
    assert set(seeds) <= {0, 7} and seeds.count(0) == 1  # 0 to see whether it works
    one, three = (
        scores(sharp(), data, ["random"], probes=2, draws=1, points=1, batch_size=size)[0]
        for size in (1, 3)
    )
    assert one.pointing == three.pointing and one.mass == three.mass and one.steps == three.steps


def test_the_same_seed_gives_the_same_rows(data: list[Example]) -> None:
    first, again, other = (
        scores(sharp(), data, ["attention"], seed=seed, probes=2, draws=1, points=2)
        for seed in (3, 3, 4)
    )
    assert first == again and first != other


def test_without_masks_there_are_only_the_figures_that_need_none(data: list[Example]) -> None:
    bare = [Example(example.image) for example in data]
    for row in scores(sharp(), bare, ["attention"], heads=0, probes=2, draws=1, points=2):
        assert row.pointing is row.mass is row.precision is None
        assert row.chance == row.untrained == {} and row.deletion is not None
    with pytest.raises(ValueError, match="1 of 2 examples have cells"):
        scores(sharp(), [data[0], bare[1]], ["attention"])


def test_a_model_without_a_head_has_no_curves(data: list[Example]) -> None:
    for row in scores(sharp(num_classes=0), data[:2], ["attention"], probes=2, draws=1):
        assert row.deletion is row.insertion is None and row.deletion_curve == ()
        assert row.mass is not None and "block 0" in row.steps


def test_methods_that_do_not_work_are_left_out_or_refused(
    data: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_a_class(model: VisionTransformer, images: Tensor, target: object = None) -> Tensor:
        if not model.config.num_classes:
            raise ValueError("the model has no head")
        return bright(model, images)

    monkeypatch.setitem(minivit.explain.METHODS, "of_a_class", of_a_class)
    model = sharp(class_token=False, pooling="mean", num_classes=0)
    usable, refusals = usable_methods(model, data[0])
    assert set(BASELINES) <= set(usable) and not {"attention", "of_a_class"} & set(usable)
    assert "no class token" in refusals["attention"] and "no head" in refusals["of_a_class"]
    with pytest.raises(ValueError, match=r"method of_a_class: the model has no head"):
        scores(model, data, ["of_a_class"])
    names = {row.name for row in scores(model, data[:2], probes=1, draws=1)}
    assert set(BASELINES) <= names and not {"attention", "of_a_class"} & names


def test_heads_of_a_model_without_a_class_token_are_refused(data: list[Example]) -> None:
    model = sharp(class_token=False, pooling="mean")
    with pytest.raises(ValueError, match="method attention, block 2, head 0: the model has no cl"):
        scores(model, data, heads=-1)


def test_each_method_is_tried_once(data: list[Example], monkeypatch: pytest.MonkeyPatch) -> None:
    """On one picture, before the pictures are explained; then two, the model and a draw beside."""
    pictures: list[int] = []

    def noted(model: VisionTransformer, images: Tensor, target: object = None) -> Tensor:
        pictures.append(len(images))
        return bright(model, images)

    monkeypatch.setitem(minivit.explain.METHODS, "noted", noted)
    for methods in (None, ["noted"]):
        pictures.clear()
        scores(sharp(), data[:2], methods, probes=1, draws=1)
        assert pictures[:3] == [1, 2, 2] and pictures[3:] == [1] * 5  # steps: head, 3 blocks, rest


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (lambda grid: torch.full((2, *grid), torch.nan), "no finite numbers"),
        (lambda grid: torch.rand(1, *grid), r"the maps are \(1, 4, 6\), expected"),
        (lambda grid: torch.rand(2, 5, *grid), "expected"),
    ],
)
def test_maps_that_cannot_be_ranked_are_refused(
    maps: Callable[[tuple[int, int]], Tensor], message: str, data: list[Example]
) -> None:
    """Else a map of NaN would score as one of the same value everywhere."""

    def method(model: VisionTransformer, images: Tensor, target: object = None) -> Tensor:
        return maps((4, 6)) if len(images) == 2 else bright(model, images)

    with pytest.raises(ValueError, match=message):
        scores(sharp(), data[:2], {"odd": method}, probes=1, draws=1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, d: scores(m, []), "there are no pictures"),
        (lambda m, d: scores(m, d, ["rolout"]), "no method is called 'rolout': choose from att"),
        (lambda m, d: scores(m, d, "attention"), "expected several names, such as"),
        (lambda m, d: scores(m, d, heads=3), "heads of block 3: choose from -3 to 2"),
        (lambda m, d: scores(m, d, probes=0), "probes is 0, expected 1 or more"),
        (lambda m, d: scores(m, d, seed=-1), "seed is -1, expected 0 or more"),
    ],
)
def test_bad_arguments_are_refused(
    call: Callable[[VisionTransformer, list[Example]], object], message: str, data: list[Example]
) -> None:
    with pytest.raises(ValueError, match=message):
        call(sharp(), data)


def test_nothing_is_left_behind(data: list[Example]) -> None:
    model = sharp().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    scores(model, data[:2], ["attention"], probes=1, draws=1, points=1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())


def test_scores_is_the_function_whatever_was_imported() -> None:
    import minivit.explain.scoring
    import minivit.explain.scoring.score_rows

    assert callable(minivit.explain.scores) and minivit.explain.scores is scores


# ---- intervals -----------------------------------------------------------------------------------


def test_an_interval_is_as_wide_as_theory_says() -> None:
    """A share of one half: 1.96 standard errors are 0.098 for 100 pictures, 0.031 for 1,000."""
    for count, width in ((100, 0.098), (1000, 0.031)):
        value, low, high = bootstrap(count, 0)((torch.arange(count) % 2).double())
        assert value == 0.5 and (high - low) / 2 == pytest.approx(width, rel=0.1)


def test_differences_are_paired() -> None:
    """Two figures that vary together by picture: their difference does not vary."""
    values = torch.rand(50, generator=torch.Generator().manual_seed(0)).double()
    estimate = bootstrap(50, 0)
    low, high = estimate(values)[1:]
    assert high - low > 0.1
    assert estimate(values - (values + 0.01)).high == pytest.approx(-0.01)
    below, above = estimate(values + 1), estimate(values)
    assert below.low - above.low == pytest.approx(1)
