"""Photos as tensors: every kind of file, and the same sample whoever makes it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from minivit.data.augmentation.pipeline import (
    Augmentation,
    ColorJitter,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomRotation,
    Resize,
)
from minivit.data.loading import load_batches
from minivit.data.photos.dataset import UNLABELLED, PhotoDataset
from minivit.data.photos.splits import read_photos, read_unlabelled
from minivit.data.seeds import sample_rng
from minivit.preprocess import BadImageError, Preprocess, open_image

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

PREPROCESS = Preprocess(
    image_size=(24, 36), mode="squash", filter="bilinear", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)
)
AUGMENTATION = Augmentation(
    transforms=(
        RandomResizedCrop((24, 36), scale=(0.3, 1.0)),
        ColorJitter(brightness=0.3),
        RandomHorizontalFlip(),
        RandomRotation(15),
    ),
    preprocess=PREPROCESS,
)
PLAIN = Augmentation(
    transforms=(Resize(image_size=(24, 36), mode="squash", filter="bilinear"),),
    preprocess=PREPROCESS,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of five photos of noise, 48 x 32."""
    rng = np.random.default_rng(0)
    for label in "ab":
        (tmp_path / label).mkdir()
        for number in range(5):
            pixels = rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / label / f"{number}.jpg")
    return tmp_path


def samples(data: PhotoDataset, workers: int, batches: list[list[int]]) -> dict[int, torch.Tensor]:
    loaded = load_batches(data, batches, workers=workers)
    return {
        index: x.clone()
        for batch, (images, labels) in zip(batches, loaded, strict=True)
        for index, x, label in zip(batch, images, labels, strict=True)
        if int(label) == data.labels[index]
    }


def test_a_sample_depends_on_seed_epoch_and_index_alone(folder: Path) -> None:
    data = PhotoDataset(read_photos(folder, seed=0).train, AUGMENTATION, seed=5)
    assert len(data) == 8 and data[0][0].shape == (3, 24, 36)
    data.set_epoch(2)
    alone = samples(data, 0, [[0, 1, 2, 3, 4, 5, 6, 7]])
    assert len(alone) == 8
    helped = samples(data, 2, [[7, 2, 0], [6], [5, 3], [1, 4]])
    for index, x in alone.items():
        expected = AUGMENTATION(open_image(data.paths[index]), sample_rng(5, 2, index))
        assert torch.equal(x, expected)
        assert torch.equal(x, helped[index])
    for seed, epoch in ((5, 3), (6, 2)):
        data.seed = seed
        data.set_epoch(epoch)
        for workers in (0, 2):
            other = samples(data, workers, [[0, 1, 2, 3], [4, 5, 6, 7]])
            assert not any(torch.equal(other[index], x) for index, x in alone.items())


def test_labels_follow_the_photos(folder: Path) -> None:
    splits = read_photos(folder, seed=0)
    data = PhotoDataset(splits.train, PLAIN)
    for index, path in enumerate(data.paths):
        assert splits.class_names[data[index][1]] == Path(path).parent.name
    bare = PhotoDataset(read_unlabelled(folder / "a"), PLAIN)
    assert [label for _, label in bare] == [UNLABELLED] * 5
    with pytest.raises(IndexError):
        bare[5]
    with pytest.raises(ValueError, match="expected 0 or more"):
        bare[-1]


def test_a_photo_is_opened_and_named_by_its_number(folder: Path) -> None:
    data = PhotoDataset(read_photos(folder, seed=0).train, AUGMENTATION)
    for index, path in enumerate(data.paths):
        assert data.open_picture(index).tobytes() == open_image(path).tobytes()
        assert data.name(index) == f"{Path(path).parent.name}/{Path(path).name}"
    with pytest.raises(IndexError):
        data.open_picture(len(data))


def test_every_kind_of_photo_gives_three_channels(tmp_path: Path) -> None:
    half = Image.new("RGB", (48, 32), (200, 40, 40))
    half.paste((40, 40, 200), (24, 0, 48, 32))  # red on the left, blue on the right
    for mode, ending in (("P", "png"), ("RGBA", "png"), ("RGBA", "webp"), ("CMYK", "jpg")):
        half.convert(mode).save(tmp_path / f"{mode}.{ending}")
    half.convert("P").save(tmp_path / "p.GIF")
    half.save(tmp_path / "RGB.TIF")
    exif = Image.Exif()
    exif[274] = 6  # stored on its side: turned clockwise it is upright
    half.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.JPEG", exif=exif)
    found = read_unlabelled(tmp_path)
    assert len(found) == 7 and found.unreadable == ()
    mean, std = torch.tensor([PREPROCESS.mean, PREPROCESS.std]).view(2, 3, 1, 1)
    for x, _ in PhotoDataset(found, PLAIN):
        colours = (x * std + mean) * 255
        assert colours.shape == (3, 24, 36)
        for place, colour in ((4, (200, 40, 40)), (31, (40, 40, 200))):
            level = torch.tensor(colour, dtype=torch.float32)
            torch.testing.assert_close(colours[:, 12, place], level, atol=12, rtol=0)


def test_grey_photos_and_single_pixels(tmp_path: Path) -> None:
    grey = Image.fromarray(np.linspace(0, 255, 6, dtype=np.uint8).reshape(2, 3))
    for mode in ("L", "LA", "1", "I;16"):
        grey.convert(mode).save(tmp_path / f"{mode[0]}{len(mode)}.png")
    Image.new("RGB", (1, 1), "white").save(tmp_path / "one.jpg")
    Image.new("RGB", (400, 1), "white").save(tmp_path / "strip.png")
    data = PhotoDataset(read_unlabelled(tmp_path), AUGMENTATION)
    assert len(data) == 6
    for index in range(6):
        for epoch in range(5):
            data.set_epoch(epoch)
            x = data[index][0]
            assert x.shape == (3, 24, 36) and bool(x.isfinite().all())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_photo_that_is_gone_since_the_check(folder: Path, workers: int) -> None:
    data = PhotoDataset(read_photos(folder, seed=0).train, AUGMENTATION)
    Path(data.paths[3]).unlink()
    with pytest.raises(BadImageError) as caught:
        samples(data, workers, [[0, 1], [2, 3]])
    assert str(caught.value) == f"{data.paths[3]}: no such file; check the path"


@pytest.mark.parametrize("name", ["a.png", "a\nb.png"])
def test_a_photo_that_the_transform_refuses_is_named(tmp_path: Path, name: str) -> None:
    def refuse(image: Image.Image, rng: np.random.Generator) -> torch.Tensor:
        raise BadImageError("too thin")

    Image.new("RGB", (3, 2)).save(tmp_path / name)
    with pytest.raises(BadImageError, match=r"png'?: too thin$") as caught:
        PhotoDataset(read_unlabelled(tmp_path), refuse)[0]
    assert "\n" not in str(caught.value)
