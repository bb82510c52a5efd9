"""Recipes: those of the package, their way through a file, and what the command line changes."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivit.training.recipe_toml import (
    RecipeError,
    read_recipe,
    read_settings,
    recipe_names,
    to_toml,
)
from minivit.training.recipes import (
    CaptionRecipe,
    ClassifyRecipe,
    make_recipe,
)
from minivit.training.sweep import combinations

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KINDS: dict[str, type[Any]] = {"classify": ClassifyRecipe, "caption": CaptionRecipe}
SMALL = 'task = "classify"\nepochs = 2\nbatch_size = 8\nlr = 0.1\n'
PHASES = SMALL + '[[phases]]\noptimizer = "adam"\nepochs = 3\n[[phases]]\nlr = 0.01\nseed = 4\n'


def load(name: str, **given_: Any) -> Any:
    return make_recipe(KINDS[read_recipe(name)["task"]], name, given_)


@pytest.fixture
def small(tmp_path: Path) -> str:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return str(path)


@pytest.fixture
def phased(tmp_path: Path) -> str:
    path = tmp_path / "phased.toml"
    path.write_text(PHASES)
    return str(path)


# ---- those of the package ------------------------------------------------------------------------


def test_the_names_of_the_package() -> None:
    captions = ["catr_coco", "scenes_captioner"]
    classes = {
        "deit_scratch", "fashion_mnist", "pets_adam_sgd", "pets_sgd", "scenes", "scenes_shipped",
        "vit_paper_finetune",
    }  # fmt: skip
    assert recipe_names("caption") == captions
    assert set(recipe_names("classify")) == classes
    assert recipe_names() == sorted({*captions, *classes})


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_can_be_followed_and_says_what_it_is(name: str) -> None:
    recipe = load(name)
    assert recipe.recipe == name and recipe.about
    assert all(phase.lr > 0 for phase in recipe.settings_of_phases())


def test_pets_with_sgd_is_what_was_reported() -> None:
    recipe = load("pets_sgd")
    assert (recipe.optimizer, recipe.lr, recipe.momentum) == ("sgd", 3e-4, 0.9)
    assert recipe.epochs == 6 and recipe.warmup_share > 0 and recipe.image_size == 384
    assert recipe.crop_scale == (0.7, 1.0) and recipe.crop_ratio == (3 / 4, 4 / 3)
    assert (recipe.brightness, recipe.flip, recipe.rotation) == (0.3, 0.5, 15)
    nothing = ("contrast", "saturation", "hue", "rand_augment", "erasing", "mixup", "cutmix")
    assert all(getattr(recipe, name) == 0 for name in nothing)
    assert len(recipe.settings_of_phases()) == 1


def test_pets_with_adam_and_then_sgd_is_what_was_reported() -> None:
    recipe = load("pets_adam_sgd")
    first, second = recipe.settings_of_phases()
    assert (first.optimizer, first.lr) == ("adam", 1e-4) and first.schedule != "constant"
    assert (second.optimizer, second.lr, second.momentum) == ("sgd", 0.01, 0.9)
    same = ("image_size", "crop_scale", "brightness", "flip", "rotation")
    assert all(getattr(recipe, name) == getattr(load("pets_sgd"), name) for name in same)


def test_catr_is_as_in_its_configuration() -> None:
    recipe = load("catr_coco")
    assert (recipe.lr, recipe.backbone_lr, recipe.weight_decay) == (1e-4, 1e-5, 1e-4)
    assert (recipe.epochs, recipe.batch_size, recipe.lr_drop) == (30, 32, 20)
    assert (recipe.optimizer, recipe.schedule, recipe.grad_clip) == ("adamw", "step", 0.1)
    assert (recipe.backbone, recipe.dim, recipe.max_length) == ("resnet101", 256, 128)
    assert recipe.augment and recipe.decay_all


# ---- there and back ------------------------------------------------------------------------------


def back(recipe: Any, tmp_path: Path) -> Any:
    """As --recipe RUN/recipe.toml reads it."""
    path = tmp_path / "recipe.toml"
    path.write_text(to_toml(recipe.to_dict()), encoding="utf-8")
    return make_recipe(type(recipe), str(path))


@pytest.mark.parametrize("name", recipe_names())
def test_a_saved_recipe_is_the_same_recipe(name: str, tmp_path: Path) -> None:
    recipe = load(name)
    assert back(recipe, tmp_path) == recipe
    changed = load(name, lr=1e-5, batch_size=3, data="C:\\pets \"'x'\"")
    assert changed.lr == 1e-5 != recipe.lr
    assert back(changed, tmp_path) == changed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "quotes \" and '",
        "C:\\new\\users\\u0041",
        "two\nlines\tand a tab\r",
        "Größe 猫 🐈",
        "all control characters " + "".join(map(chr, range(32))) + "\x7f\x85\u2028\ufeff",
        "# no comment",
        "[phases]",
        "'''\"\"\"",
    ],
)
def test_every_text_comes_back(text: str, tmp_path: Path) -> None:
    recipe = load("scenes", data=text, weights=text, about=text, recipe=text)
    assert back(recipe, tmp_path) == recipe


PLAIN = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.text(), st.floats(-1e9, 1e9))
TABLES = st.dictionaries(
    st.from_regex(r"[A-Za-z_]{1,5}", fullmatch=True), PLAIN | st.lists(PLAIN, max_size=3)
)


@given(TABLES, st.lists(TABLES, min_size=1, max_size=3))
def test_toml_reads_what_was_written(table: dict[str, Any], phases: list[dict[str, Any]]) -> None:
    assert tomllib.loads(to_toml(table)) == table
    nested = {"tables": phases, **table}  # which come last in the file
    assert tomllib.loads(to_toml(nested)) == nested


@pytest.mark.parametrize("number", [1e-4, 1e-5, 3e-4, 1e-300, 0.1 + 0.2, 1e16, 1e22, 8.0])
def test_every_number_keeps_all_its_digits(number: float) -> None:
    found = tomllib.loads(to_toml({"lr": number}))["lr"]
    assert found == number and type(found) is float


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("batchsize", "batch_size"),
        ("batch", "batch_size"),
        ("learning_rate", "lr"),
        ("wd", "weight_decay"),
        ("weight_dacay", "weight_decay"),
        ("warm_up", "warmup_share"),
        ("optimiser", "optimizer"),
        ("epoch", "epochs"),
        ("smoothing", "label_smoothing"),
        ("num_head", "num_heads"),
    ],
)
def test_an_unknown_key_suggests_the_nearest(key: str, nearest: str, small: str) -> None:
    message = f"there is no key '{key}': did you mean {nearest}\\?$"
    with pytest.raises(RecipeError, match=f"^the command line: {message}"):
        make_recipe(ClassifyRecipe, small, {key: 1})
    Path(small).write_text(f"{key} = 1\n{SMALL}")
    with pytest.raises(RecipeError, match=f"small.toml: {message}"):
        make_recipe(ClassifyRecipe, small)


def test_a_key_like_none_lists_them(small: str) -> None:
    with pytest.raises(RecipeError, match=r"no key 'zzz': known are epochs, batch_size, lr, "):
        make_recipe(ClassifyRecipe, small, {"zzz": 1})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("seed = 1.5", "seed is 1.5, expected a whole number"),
        ("seed = true", "seed is True, expected a whole number"),
        ("grad_clip = true", "grad_clip is True, expected a number"),
        ("grad_clip = '1'", "grad_clip is '1', expected a number"),
        ("rotation = inf", "rotation is inf, expected a number"),
        ("hue = nan", "hue is nan, expected a number"),
        ("crop_scale = [0.5, inf]", "crop_scale is inf, expected a number"),
        ("crop_scale = 0.5", "crop_scale is 0.5, expected a list"),
        ("crop_scale = ['a', 'b']", "crop_scale is 'a', expected a number"),
        ("strict = 1", "strict is 1, expected true or false"),
        ("weights = 3", "weights is 3, expected a text"),
        ("data = 1979-05-27", r"data is datetime.date\(1979, 5, 27\), expected a text"),
        ("optimizer = 'lion'", "optimizer is 'lion': choose from sgd, adam, adamw, muon"),
        ("optimizer = ['sgd']", r"optimizer is \['sgd'\]: choose from "),
    ],
)
def test_a_value_of_a_wrong_type_is_named(line: str, said: str, small: str) -> None:
    Path(small).write_text(f"{line}\n{SMALL}")
    with pytest.raises(RecipeError, match=f"small.toml: {said}"):
        make_recipe(ClassifyRecipe, small)


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"limit": -1}, "limit is -1"),
        ({"workers": -1}, "workers is -1"),
        ({"held_out": 1.0}, "held_out is 1.0, expected a share"),
        ({"crop_scale": [0.5]}, r"crop_scale is \(0.5,\), expected two numbers"),
        ({"crop_ratio": []}, r"crop_ratio is \(\), expected two numbers"),
        ({"mixup": -1}, "mixup is -1.0, expected at least 0"),
        ({"num_scenes": -1}, "num_scenes is -1"),
    ],
)
def test_a_value_that_is_not_possible_is_named(
    given_: dict[str, Any], said: str, small: str
) -> None:
    with pytest.raises(ValueError, match=said):
        make_recipe(ClassifyRecipe, small, given_)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"epochs = ", "not a TOML file"),
        (b"epochs: 3", "not a TOML file"),
        (b"\x89PNG\r\n\x1a\n", "not a TOML file"),
        (b"lr = 1\nlr = 2", "not a TOML file"),
        (b"phases = 3", r"phases are written as tables, \[\[phases\]\]"),
        (b"phases = [3]", r"phases are written as tables, \[\[phases\]\]"),
        (b"[phases]\nlr = 1", r"phases are written as tables, \[\[phases\]\]"),
        (b"task = 'caption'\nlr = 1", "a recipe for 'caption', this command is 'classify'"),
        (b"task = 3\nlr = 1", "a recipe for 3, this command is 'classify'"),
        (b"epochs = 3", "batch_size, lr missing"),
        (b"", "epochs, batch_size, lr missing"),
        (b"epochs = 1\nbatch_size = 1\n[[phases]]\nlr = 1\n[[phases]]\nepochs = 2", "lr missing"),
    ],
)
def test_a_file_that_is_no_recipe_is_named_in_one_line(
    text: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(text)
    with pytest.raises(RecipeError, match=f"bad.toml: {said}") as error:
        make_recipe(ClassifyRecipe, str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["nowhere", "nowhere.toml", ""])
def test_a_recipe_that_is_not_there_lists_those_that_are(name: str) -> None:
    with pytest.raises(RecipeError, match=rf"^{name}: no such recipe; .* catr_coco, deit_scratch"):
        make_recipe(ClassifyRecipe, name)


def test_a_captioner_has_no_settings_of_classifiers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="trainable is 'head': a captioner has 'all'"):
        load("scenes_captioner", trainable="head")
    with pytest.raises(ValueError, match=r"layer_decay is 0.7: a captioner has 1.0"):
        load("scenes_captioner", layer_decay=0.7)
    path = tmp_path / "phases.toml"
    path.write_text(SMALL.replace("classify", "caption") + "[[phases]]\ntrainable = 'head'\n")
    with pytest.raises(ValueError, match="trainable is 'head'"):
        load(str(path))
    with pytest.raises(ValueError, match=r"backbone_lr is -1.0"):
        load("scenes_captioner", backbone_lr=-1)


# ---- names of before -----------------------------------------------------------------------------

OLD = """
about = "as train.py wrote it into run folders"
task = "classify"
epochs = 2
batch_size = 8
lr = 0.1
warmup = 0.25
clip = 0.5
ema = 0.9
train = "all"

[[phases]]
train = "head"
warmup = 0.5

[[phases]]
ema = 0.0
epochs = 3
"""
NEW = {"warmup": "warmup_share", "clip": "grad_clip", "ema": "ema_decay", "train": "trainable"}


@pytest.fixture
def old(tmp_path: Path) -> str:
    path = tmp_path / "recipe.toml"
    path.write_text(OLD)
    return str(path)


def test_a_recipe_of_before_is_read_and_says_the_new_names(old: str, tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning) as caught:
        recipe = load(old)
    messages = {str(warning.message) for warning in caught}
    phases = {(1, "train"), (1, "warmup"), (2, "ema")}
    assert messages == {f"{old}: {key} is called {name} now" for key, name in NEW.items()} | {
        f"{old}, phase {number}: {key} is called {NEW[key]} now" for number, key in phases
    }
    first, second = recipe.settings_of_phases()
    assert (first.trainable, first.warmup_share, first.grad_clip) == ("head", 0.5, 0.5)
    assert (first.ema_decay, second.ema_decay) == (0.9, 0.0)
    assert (second.trainable, second.warmup_share, second.epochs) == ("all", 0.25, 3)
    text = to_toml(recipe.to_dict())
    table = tomllib.loads(text)
    assert not {*table, *table["phases"][0], *table["phases"][1]} & set(NEW)
    path = tmp_path / "new.toml"
    path.write_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = load(str(path))
    assert again == recipe


def test_what_is_given_by_an_old_name_wins_in_every_phase(old: str) -> None:
    with pytest.warns(DeprecationWarning) as caught:
        recipe = load(old, warmup=0.125)
    said = "the command line: warmup is called warmup_share now"
    assert said in {str(warning.message) for warning in caught}
    assert [phase.warmup_share for phase in recipe.settings_of_phases()] == [0.125, 0.125]


def test_a_key_by_both_names_is_refused(small: str) -> None:
    said = "small.toml: clip is called grad_clip now, and is given by both names: leave out clip$"
    Path(small).write_text(f"clip = 1.0\ngrad_clip = 2.0\n{SMALL}")
    with (
        pytest.warns(DeprecationWarning, match="clip"),
        pytest.raises(RecipeError, match=said),
    ):
        load(small)


# ---- phases and the command line -----------------------------------------------------------------


def test_a_phase_replaces_what_the_recipe_says(phased: str) -> None:
    first, second = load(phased).settings_of_phases()
    assert (first.optimizer, first.epochs, first.lr, first.seed) == ("adam", 3, 0.1, 0)
    assert (second.optimizer, second.epochs, second.lr, second.seed) == ("adamw", 2, 0.01, 4)


def test_what_is_given_wins_in_every_phase(phased: str) -> None:
    recipe = load(phased, epochs=7, optimizer="sgd", data="photos")
    assert [phase.epochs for phase in recipe.settings_of_phases()] == [7, 7]
    assert [phase.optimizer for phase in recipe.settings_of_phases()] == ["sgd", "sgd"]
    assert [phase.lr for phase in recipe.settings_of_phases()] == [0.1, 0.01]
    assert recipe.data == "photos"


def test_a_saved_recipe_of_changed_phases_is_the_same(phased: str, tmp_path: Path) -> None:
    recipe = load(phased, epochs=7, image_size=48)
    assert back(recipe, tmp_path) == recipe
    assert back(recipe, tmp_path).settings_of_phases() == recipe.settings_of_phases()


def test_what_a_phase_says_wrongly_is_named_with_its_number(phased: str) -> None:
    for line, said in (
        ("epoch = 1", "there is no key 'epoch': did you mean epochs"),
        ("flip = 0.5", "there is no key 'flip': all phases have that of the recipe"),
        ("backbone_lr = 0.5", "there is no key 'backbone_lr': all phases have that of the recipe"),
        ("epochs = 'many'", "epochs is 'many', expected a whole number"),
        ("phases = []", "there is no key 'phases': phases are tables of a recipe file"),
    ):
        Path(phased).write_text(f"{PHASES}{line}\n")
        with pytest.raises(RecipeError, match=f"phased.toml, phase 2: {said}"):
            load(phased)
    Path(phased).write_text(PHASES + "warmup_share = 2.0\n")
    with pytest.raises(ValueError, match=r"warmup_share is 2.0, expected a share"):
        load(phased)


def test_settings_may_stand_in_the_phases_alone(phased: str) -> None:
    Path(phased).write_text(
        "epochs = 1\nbatch_size = 2\n[[phases]]\nlr = 0.5\n[[phases]]\nlr = 2\n"
    )
    recipe = make_recipe(ClassifyRecipe, phased)
    assert [phase.lr for phase in recipe.settings_of_phases()] == [0.5, 2.0]


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("weight_decay=0.05", "weight_decay", 0.05),
        ("lr=3e-4", "lr", 3e-4),
        ("lr=.5", "lr", 0.5),
        ("lr=-1.e-3", "lr", -1e-3),
        ("num_scenes=45_000", "num_scenes", 45000),
        ("strict=true", "strict", True),
        ("crop_scale=[0.5, 1.0]", "crop_scale", [0.5, 1.0]),
        ("crop_scale=[]", "crop_scale", []),
        ("optimizer=sgd", "optimizer", "sgd"),
        ("optimizer='sgd'", "optimizer", "sgd"),
        ('optimizer="sgd"', "optimizer", "sgd"),
        (" optimizer = sgd ", "optimizer", "sgd"),
        ("data=/a place/with, a comma=1", "data", "/a place/with, a comma=1"),
        (r"data=C:\pets", "data", r"C:\pets"),
        ("weights=", "weights", ""),
        ("lr=1e-3,1e-4", "lr", "1e-3,1e-4"),  # of which nothing is dropped silently
    ],
)
def test_key_and_value(text: str, key: str, value: Any) -> None:
    found = read_settings([text])
    assert found == {key: value} and type(found[key]) is type(value)


def test_the_last_of_equal_keys_wins_and_an_equals_sign_is_needed() -> None:
    assert read_settings(["lr=1", "lr=2"]) == {"lr": 2}
    with pytest.raises(RecipeError, match=r"^'lr 2': expected KEY=VALUE, such as weight_decay"):
        read_settings(["lr 2"])


@pytest.mark.parametrize("text", ["phases=[]", "phases=[{lr=1}]", "phases=1"])
def test_phases_are_not_set_on_the_command_line(text: str, small: str) -> None:
    with pytest.raises(RecipeError, match=r"'phases': phases are tables of a recipe file"):
        make_recipe(ClassifyRecipe, small, read_settings([text]))


# ---- combinations --------------------------------------------------------------------------------


def test_every_combination_with_a_name_of_what_differs(small: str) -> None:
    given_ = {"epochs": 5, "image_size": 48}
    runs = combinations([small], ["optimizer=sgd,adam", "lr=3e-4,1"], given_)
    assert [name for name, _ in runs] == [
        "optimizer=sgd,lr=0.0003", "optimizer=sgd,lr=1",
        "optimizer=adam,lr=0.0003", "optimizer=adam,lr=1",
    ]  # fmt: skip
    expected = [("sgd", 3e-4), ("sgd", 1.0), ("adam", 3e-4), ("adam", 1.0)]
    assert [(recipe.optimizer, recipe.lr) for _, recipe in runs] == expected
    for _, recipe in runs:
        assert recipe.epochs == 5 and isinstance(recipe, ClassifyRecipe)
        assert recipe.image_size == 48


def test_recipes_of_both_kinds_side_by_side() -> None:
    runs = combinations(["scenes", "scenes_captioner"], [], {"epochs": 1})
    assert [(name, type(recipe)) for name, recipe in runs] == [
        ("scenes", ClassifyRecipe),
        ("scenes_captioner", CaptionRecipe),
    ]
    varied = combinations(["scenes", "pets_sgd"], ["seed=1,2"], {})
    assert [name for name, _ in varied] == [
        "scenes,seed=1", "scenes,seed=2", "pets_sgd,seed=1", "pets_sgd,seed=2",
    ]  # fmt: skip


def test_weights_or_none(small: str) -> None:
    runs = combinations([small], ["weights=,runs/a b/vit.safetensors"], {})
    assert [name for name, _ in runs] == ["weights=none", "weights=vit"]
    assert [recipe.weights for _, recipe in runs] == ["", "runs/a b/vit.safetensors"]


def test_equal_names_are_told_apart(small: str) -> None:
    runs = combinations([small], ["weights=a/vit.safetensors,b/vit.safetensors"], {})
    assert [name for name, _ in runs] == ["weights=vit", "weights=vit,2"]
    twice = combinations([small, small], [], {})
    assert [name for name, _ in twice] == ["small", "small,2"]


def test_lists_as_values_and_names_that_fit_a_folder(small: str) -> None:
    runs = combinations([small], ["crop_scale=[0.5, 1.0],[0.7, 1.0],[]"], {})
    scales = [recipe.to_dict()["crop_scale"] for _, recipe in runs]
    assert scales == [(0.5, 1.0), (0.7, 1.0), ()]
    names = [name for name, _ in runs]
    assert len(set(names)) == 3
    odd = combinations([small], ['data="x/a\\nb:c*?",/tmp/..'], {})
    for name in [*names, *(name for name, _ in odd)]:
        assert not set(name) & set('/\\:*?"<>|\n []')


@pytest.mark.parametrize("vary", [[], ["lr=1"], ["lr="]])
def test_one_run_is_no_comparison(vary: list[str], small: str) -> None:
    with pytest.raises(RecipeError):
        combinations([small], vary, {})
    if vary != ["lr="]:
        with pytest.raises(RecipeError, match="one run is no comparison: give two recipes or more"):
            combinations([small], vary, {})


def test_a_bad_value_is_refused_before_anything_runs(small: str) -> None:
    for vary, said in (
        (["lr=0.1,fast"], "lr is 'fast', expected a number"),
        (["learning_rate=1,2"], r"did you mean lr\?"),
        (["lr"], "expected KEY=VALUE"),
        (["lr=1,2", "lr=3"], "lr is varied twice"),
        (["phases=1,2"], "phases are tables"),
    ):
        with pytest.raises(RecipeError, match=said):
            combinations([small], vary, {})


def test_recipes_are_values(small: str) -> None:
    """Two of the same file are equal; none can be changed."""
    recipe = load(small)
    assert recipe == load(small) != load(small, seed=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.lr = 1.0
