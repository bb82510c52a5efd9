"""Pictures to score maps on: the mask lies on what the model sees."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from minivit.data.errors import BadDataError
from minivit.data.scenes.dataset import TEST_SEED, make_scene
from minivit.explain.scoring.examples import PhotoExamples, SceneExamples, even_numbers
from minivit.preprocess import Preprocess
from minivit.vit import VisionTransformer
from tests.explain.scored_models import sharp


@pytest.fixture
def model() -> VisionTransformer:
    """Sees the middle 32 x 48 pixels of what was resized to 64 x 96."""
    model = sharp()
    model.preprocess = Preprocess(
        image_size=(32, 48), mode="squash", crop_fraction=0.5, filter="box",
        mean=(0.5,) * 3, std=(0.5,) * 3,
    )  # fmt: skip
    return model


def write(folder: Path, name: str, pixels: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(folder / name)
    return folder


def test_a_scene_brings_the_mask_of_the_object_that_names_it(model: VisionTransformer) -> None:
    model.preprocess = replace(model.preprocess, crop_fraction=1.0)
    examples = SceneExamples(model, 3)
    assert len(examples) == len(list(examples)) == len(examples[:5]) == 3
    scenes = [make_scene(TEST_SEED, number, image_size=(32, 48)) for number in range(6)]
    assert any(len(scene.objects) > 1 for scene in scenes)
    for scene, (image, cells) in zip(scenes, SceneExamples(model, 6), strict=True):
        assert torch.equal(image, model.preprocess(scene.image)) and cells is not None
        expected = scene.objects[0].mask.reshape(4, 8, 6, 8).mean(axis=(1, 3))
        np.testing.assert_allclose(cells.share, expected, atol=1e-6)
    assert torch.equal(examples[-1].image, model.preprocess(scenes[2].image))
    with pytest.raises(IndexError):
        examples[3]


def test_a_mask_is_cut_as_its_photo_is(model: VisionTransformer, tmp_path: Path) -> None:
    """The object is the upper left quarter of the photo; of the middle half, too."""
    photo = np.zeros((60, 90, 3), np.uint8)
    photo[:30, :45] = 255
    mask = (photo[..., 0] > 0).astype(np.uint8)
    photos, masks = write(tmp_path / "photos", "a.png", photo), write(tmp_path / "m", "a.png", mask)
    image, cells = PhotoExamples(model, photos, masks)[0]
    assert image.shape == (3, 32, 48) and cells is not None
    bright = image.mean(dim=0).reshape(4, 8, 6, 8).mean(dim=(1, 3)) > 0
    assert torch.equal(cells.share > 0.5, bright) and int(bright.sum()) == 2 * 3
    assert PhotoExamples(model, photos)[0].cells is None


def test_photos_are_chosen_evenly_and_rules_are_counted(
    model: VisionTransformer, tmp_path: Path
) -> None:
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    kinds = [[1, 2, 3], [0, 255], [0, 1, 255], [0, 7], [2, 1]]
    for number, kind in enumerate(kinds):
        write(photos, f"{number}.jpg", np.zeros((20, 30, 3), np.uint8))
        write(masks, f"{number}.png", np.resize(np.array(kind, np.uint8), (20, 30)))
    examples = PhotoExamples(model, photos, masks, limit=2)
    assert [photo.name for photo, _ in examples.paths] == ["0.jpg", "2.jpg"]
    assert even_numbers(5, 2) == [0, 2] and even_numbers(2, 5) == [0, 1]
    done: list[int] = []
    rules = PhotoExamples(model, photos, masks).check(done.append)
    assert rules == {"trimap": 2, "black and white": 1, "above 0": 2} and done == [1] * 5


def test_masks_that_say_nothing_are_refused(model: VisionTransformer, tmp_path: Path) -> None:
    photos = write(tmp_path / "photos", "a.png", np.zeros((60, 90, 3), np.uint8))
    empty = write(tmp_path / "empty", "a.png", np.zeros((60, 90), np.uint8))
    ring = np.full((60, 90), 255, np.uint8)
    ring[0], ring[-1] = 1, 0
    ring = write(tmp_path / "ring", "a.png", ring)
    for masks, message in ((empty, "shows no object"), (ring, "marked as to be ignored")):
        with pytest.raises(BadDataError, match=message):
            PhotoExamples(model, photos, masks)[0]
    with pytest.raises(BadDataError, match="no photos in this folder"):
        PhotoExamples(model, tmp_path)
