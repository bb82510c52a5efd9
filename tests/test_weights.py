"""The weights inside the package: each has a name, and each loads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import minivit
from minivit.captioner import Captioner
from minivit.data.scenes.dataset import TEST_SEED, make_scene
from minivit.explain import class_attention, position_scores, position_similarity
from minivit.explain.pointing import covered, pointing_game
from minivit.training.caption.grounding import best, best_maps, ground
from minivit.training.caption.report import write_captions
from minivit.training.caption.scene_truth import scene_scores
from minivit.weights import SHIPPED, find_weights, weights_title


def test_every_file_in_the_package_has_a_name() -> None:
    folder = Path(minivit.__file__).parent / "weights"
    assert {path.stem: path for path in folder.glob("*.safetensors")} == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_each_loads_with_all_that_a_model_needs(name: str) -> None:
    model = minivit.load_model(SHIPPED[name])
    if name == "scenes_captioner":
        assert isinstance(model, Captioner)
        assert "circle" in model.tokenizer.vocabulary
    else:
        assert isinstance(model, minivit.VisionTransformer)
        assert len(model.labels) == model.config.num_classes
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_the_title_of_weights_tells_the_runs_apart_and_says_what_is_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert weights_title(SHIPPED["scenes"]) == "scenes.safetensors, shipped with minivit"
    assert weights_title(Path("runs/pets/best.safetensors")) == "pets/best.safetensors"
    assert weights_title(Path("runs/pets/last.safetensors")) == "pets/last.safetensors"
    assert weights_title(Path("weights/B_16.safetensors")) == "B_16.safetensors"
    assert weights_title(Path("copy/scenes.safetensors")) == "scenes.safetensors"
    monkeypatch.chdir(tmp_path)
    assert weights_title(Path("best.safetensors")) == f"{tmp_path.name}/best.safetensors"


def test_a_name_is_a_string_and_all_else_is_a_path() -> None:
    for name, path in SHIPPED.items():
        assert find_weights(name) == path
        assert find_weights(Path(name)) == Path(name)
        assert find_weights(f"./{name}") == Path(name)
        assert find_weights(f"{name}.safetensors") == Path(f"{name}.safetensors")
    assert find_weights("unknown") == Path("unknown")


def test_the_positions_of_the_scenes_model_show_the_grid() -> None:
    """As those of a trained DINOv2 ViT-S/14 do: 99.8 %, 0.51 and 0.53 against 0.08, 0.57."""
    model = minivit.load_model("scenes")
    assert min(model.grid_size) >= 12
    scores = position_scores(position_similarity(model))
    assert scores.neighbours >= 0.95
    assert min(scores.same_row, scores.same_column) >= scores.others + 0.25
    assert scores.rank_correlation >= 0.55


@torch.inference_mode()
def test_the_scenes_model_is_right_and_looks_at_what_it_names() -> None:
    """On 100 of the test scenes: a class token that loved corners would miss a fifth of them."""
    model = minivit.load_model("scenes")
    size = model.preprocess.image_size
    scenes = [make_scene(TEST_SEED, index, image_size=size) for index in range(100)]
    images = torch.stack([model.preprocess(scene.image) for scene in scenes])
    rows = minivit.AttentionRows(blocks=[-1], queries=[0])
    logits, attentions = model(images, return_attention=rows)
    assert (
        logits.argmax(1) == torch.tensor([scene.label for scene in scenes])
    ).float().mean() > 0.96
    masks = torch.stack([torch.from_numpy(scene.objects[0].mask) for scene in scenes])
    cells = covered(masks, model.grid_size)
    hits = pointing_game(class_attention(attentions), cells, rule="half").hits
    assert hits.float().mean() > 0.85


def test_the_scenes_captioner_says_what_is_true_and_looks_at_what_it_names() -> None:
    """On 200 of the test scenes; the figures of 2,000 stand in the README."""
    captioner = minivit.load_model("scenes_captioner")
    assert isinstance(captioner, Captioner)
    size = captioner.preprocess.image_size
    scenes = [make_scene(TEST_SEED, index, image_size=size) for index in range(200)]
    scores = scene_scores(write_captions(captioner, [scene.image for scene in scenes]), scenes)
    assert scores["attribute_words"] > 0.97
    assert scores["relations"] > 0.85
    assert scores["whole"] > 0.80
    rows = ground(captioner, scenes)
    assert best(rows, "shape").hits > 0.93
    assert best(rows, "colour", "reads").hits > 0.93


def test_the_map_that_the_scenes_captioner_recommends_is_the_best_on_new_scenes_too() -> None:
    captioner = minivit.load_model("scenes_captioner", expected=Captioner)
    size = captioner.preprocess.image_size
    scenes = [make_scene(TEST_SEED, index, image_size=size) for index in range(200)]
    measured = {(each.align, each.words): each for each in best_maps(ground(captioner, scenes))}
    for align in ("predicts", "reads"):
        stored, now = captioner.best_map(align), measured[align, "all"]
        assert stored is not None
        assert (stored.block, stored.head) == (now.block, now.head)
        assert stored.hits == pytest.approx(now.hits, abs=0.05)
