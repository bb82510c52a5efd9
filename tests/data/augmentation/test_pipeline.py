"""Augmentation: from a photo to a sample that depends on three numbers.

In the parity run a whole pipeline stands beside torchvision.transforms.v2.
"""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from minivit.data.augmentation.boxes import Box
from minivit.data.augmentation.colour import ColorJitter
from minivit.data.augmentation.erasing import RandomErasing
from minivit.data.augmentation.geometry import (
    RandomHorizontalFlip,
    RandomQuarterTurn,
    RandomResizedCrop,
    RandomRotation,
    Resize,
)
from minivit.data.augmentation.pipeline import Augmentation
from minivit.data.augmentation.rand_augment import RandAugment
from minivit.data.seeds import sample_rng
from minivit.preprocess import BadImageError, Preprocess
from tests.data.augmentation.draws import MEAN, PHOTOS, PREPROCESS, STD, difference, noise

# --- one sample, three numbers -------------------------------------------------------------------


def everything(**changes) -> Augmentation:
    fields = {
        "transforms": (
            RandomResizedCrop((40, 60)),
            RandomHorizontalFlip(),
            ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
            RandomRotation(15),
            RandAugment(),
        ),
        "preprocess": PREPROCESS,
        "erasing": RandomErasing(value="random"),
    }
    return Augmentation(**(fields | changes))


class Samples(Dataset):
    """Twelve photos as a training run sees them in one epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.augmentation = everything()

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.augmentation(noise(90, 60 + index), sample_rng(7, self.epoch, index))


def test_a_sample_depends_on_seed_epoch_and_index_alone():
    triples = [(s, e, i) for s in range(3) for e in range(3) for i in range(3)]
    make = everything()
    first = {triple: make(noise(90, 60), sample_rng(*triple)) for triple in triples}
    np.random.seed(3)
    torch.manual_seed(3)
    state = np.random.get_state()[1].copy(), torch.get_rng_state()
    for triple in reversed(triples):
        assert torch.equal(make(noise(90, 60), sample_rng(*triple)), first[triple])
    assert np.array_equal(np.random.get_state()[1], state[0])
    assert torch.equal(torch.get_rng_state(), state[1])
    assert len({tuple(x.flatten().tolist()) for x in first.values()}) == len(triples)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_the_number_of_workers_changes_nothing():
    expected = [Samples(epoch=2)[index] for index in range(12)]
    for workers in (0, 1, 3):
        loader = DataLoader(Samples(epoch=2), batch_size=5, num_workers=workers)
        assert torch.equal(torch.cat(list(loader)), torch.stack(expected)), workers
    assert not torch.equal(Samples(epoch=3)[0], expected[0])


# --- from photo to tensor ------------------------------------------------------------------------


def test_the_tensor_is_the_normalised_view():
    for index in range(20):
        make = everything(erasing=None)
        view = make.view(noise(90, 60), sample_rng(0, 0, index))
        tensor = make(noise(90, 60), sample_rng(0, 0, index))
        assert tensor.shape == (3, 40, 60) and tensor.dtype == torch.float32
        assert tensor.is_contiguous()
        expected = (np.asarray(view) / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
        np.testing.assert_array_equal(tensor.numpy(), expected.transpose(2, 0, 1))


def test_without_transforms_it_is_what_preprocess_gives():
    resize = Resize(image_size=(40, 60), mode="crop", filter="bicubic", crop_fraction=0.9)
    preprocess = Preprocess(
        image_size=(40, 60), mode="crop", filter="bicubic", crop_fraction=0.9, mean=MEAN, std=STD
    )
    make = Augmentation(transforms=(resize,), preprocess=preprocess)
    assert torch.equal(make(noise(90, 71), sample_rng(0, 0, 0)), preprocess(noise(90, 71)))
    as_catr = Resize(image_size=(30, 30), mode="fit_longest", filter="bicubic")
    turned = Augmentation(transforms=(RandomQuarterTurn((90,)), as_catr), preprocess=preprocess)
    assert turned(noise(90, 60), sample_rng(0, 0, 0)).shape == (3, 30, 20)


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA", "LA", "CMYK", "I;16", "F", "HSV"])
@pytest.mark.parametrize("size", [(90, 60), (1, 1), (1, 50), (50, 1)])
def test_any_mode_and_size(mode, size):
    image = Image.new("I;16", size, 40_000) if mode == "I;16" else noise(*size).convert(mode)
    before = image.tobytes()
    for index in range(10):
        tensor = everything()(image, sample_rng(0, 0, index))
        assert tensor.shape == (3, 40, 60) and tensor.isfinite().all()
    assert image.tobytes() == before and image.mode == mode


def test_the_photo_is_left_alone():
    image = noise(60, 40)
    before = image.tobytes()
    for transforms in [(), (RandomHorizontalFlip(0),), (RandomResizedCrop((40, 60)),)]:
        make = Augmentation(transforms=transforms, preprocess=PREPROCESS)
        make(image, sample_rng(0, 0, 0)).zero_()
        assert image.tobytes() == before


def test_a_picture_without_pixels_is_refused():
    with pytest.raises(BadImageError, match=r"\(0, 5\).*at least 1"):
        everything()(Image.new("RGB", (0, 5)), sample_rng(0, 0, 0))


def test_one_line_describes_it_all():
    line = everything().describe()
    assert "\n" not in line
    order = ["ResizedCrop(size=(40, 60), scale=(0.08, 1.0)", "Flip(p=0.5)", "ColorJitter(bright"]
    order += ["Rotation(degrees=15", "RandAugment(num_ops=2, magnitude=9", "normalise", "Erasing("]
    places = [line.index(part) for part in order]
    assert places == sorted(places)
    assert everything(erasing=None).describe().endswith("normalise")


# --- side by side with torchvision -----------------------------------------------------------


@pytest.mark.parity
def test_a_whole_recipe_equals_torchvision(v2, monkeypatch):
    """All steps one after the other, with torchvision's draws in place of ours."""
    crop, jitter = v2.RandomResizedCrop((64, 96)), v2.ColorJitter(brightness=0.3)
    rotation = v2.RandomRotation(15)
    to_tensor = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, True), v2.Normalize(MEAN, STD)])
    for photo in PHOTOS:
        image = noise(*photo)
        box, colours = crop.make_params([image]), jitter.make_params([image])
        angle = rotation.make_params([image])
        other = rotation.transform(jitter.transform(crop.transform(image, box), colours), angle)
        ours = (RandomResizedCrop((64, 96)), ColorJitter(brightness=0.3), RandomRotation(15))
        drawn = [Box(**box), (("brightness", colours["brightness_factor"]),), angle["angle"]]
        for transform, chosen in zip(ours, drawn, strict=True):
            monkeypatch.setattr(type(transform), "draw", lambda *_, chosen=chosen: chosen)
        make = Augmentation(transforms=ours, preprocess=PREPROCESS)
        assert difference(make.view(image, sample_rng(0, 0, 0)), other) == 0
        tensor = make(image, sample_rng(0, 0, 0))
        torch.testing.assert_close(tensor, to_tensor(other).contiguous(), rtol=0, atol=1e-6)
