"""IDX files: read as specified, refused where a byte is missing, split as photos are."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from minivit.data.augmentation.pipeline import (
    Augmentation,
    ColorJitter,
    RandomErasing,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
)
from minivit.data.errors import BadDataError
from minivit.data.loading import load_batches
from minivit.data.photos.dataset import PhotoDataset
from minivit.data.photos.idx import FASHION_NAMES, has_idx, parse_idx, read_idx
from minivit.data.photos.sets import PhotoSet
from minivit.data.photos.splits import read_labelled, read_photos
from minivit.data.seeds import sample_rng
from minivit.preprocess import Preprocess

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

NAMES = {
    "train-images-idx3-ubyte": (4, 3, 2),
    "train-labels-idx1-ubyte": (4,),
    "t10k-images-idx3-ubyte": (2, 3, 2),
    "t10k-labels-idx1-ubyte": (2,),
}


def idx(*shape: int, values: bytes | None = None) -> bytes:
    header = bytes((0, 0, 8, len(shape))) + np.array(shape, dtype=">i4").tobytes()
    return header + (bytes(range(int(np.prod(shape)))) if values is None else values)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, shape in NAMES.items():
        (tmp_path / name).write_bytes(idx(*shape))
    return tmp_path


def message(folder: Path) -> str:
    with pytest.raises(BadDataError) as caught:
        read_idx(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_values_have_the_shape_and_order_of_the_specification(folder: Path) -> None:
    images, labels, test_images, test_labels = data = read_idx(folder)
    assert images.dtype == torch.uint8 and labels.dtype == torch.int64
    assert torch.equal(images, torch.arange(24, dtype=torch.uint8).reshape(4, 3, 2))
    assert test_images.shape == (2, 3, 2)
    assert labels.tolist() == [0, 1, 2, 3] and test_labels.tolist() == [0, 1]
    assert data.class_names == ("0", "1", "2", "3")
    images += 1  # memory of its own


@pytest.mark.parametrize("change", [".gz", "point"])
def test_packed_files_and_the_other_spelling(folder: Path, change: str) -> None:
    expected = read_idx(folder)
    for path in list(folder.iterdir()):
        if change == ".gz":
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
        else:
            path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert has_idx(folder)
    for one, other in zip(expected, read_idx(folder), strict=True):
        assert torch.equal(one, other)


def test_fashion_mnist_is_known_by_its_labels(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The digest of the labels that lie here stands for that of the published ones.
    digest = "b413f47d14e2e9a7a2d4f0e8e1d9c4ae"
    data = read_idx(folder)
    assert data.class_names != FASHION_NAMES

    class Digest:
        def __init__(self, labels: bytes) -> None:
            assert labels == b"\0\1"

        def hexdigest(self) -> str:
            return digest

    monkeypatch.setattr("minivit.data.photos.idx._FASHION_LABELS", digest)
    monkeypatch.setattr("minivit.data.photos.idx.hashlib.sha256", Digest)
    assert data.class_names == FASHION_NAMES
    assert len(FASHION_NAMES) == 10 and FASHION_NAMES[9] == "Ankle boot"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "begins with nothing"),
        (b"\x89PNG0000000000000", "begins with 89 50 4e 47"),
        (idx(4, 3, 2)[:12], "has 12 bytes"),
        (idx(24), "00 00 08 03, then 3 sizes"),
        (bytes((0, 0, 13, 3)) + idx(4, 3, 2)[4:], "begins with 00 00 0d 03"),
        (idx(4, 3, 2)[:-1], "23 values, its header says 4 × 3 × 2"),
        (idx(4, 3, 2) + b"\0", "more values"),
        (idx(2**31 - 1, 2**31 - 1, 9, values=b""), "0 values"),
        (idx(0, 3, 2), "header says 0 × 3 × 2"),
    ],
)
def test_a_broken_file_is_refused_in_one_line(folder: Path, data: bytes, words: str) -> None:
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(data)
    text = message(folder)
    assert text.startswith(f"{path}: ")
    assert words in text
    with pytest.raises(BadDataError):
        parse_idx(path, data, dimensions=3)


def test_a_packed_file_that_was_cut_is_refused(folder: Path) -> None:
    path = folder / "t10k-labels-idx1-ubyte"
    packed = gzip.compress(path.read_bytes())
    path.unlink()
    for data in (packed[:-9], b"no gzip", packed[:12] + bytes(8) + packed[20:]):
        path.with_name(f"{path.name}.gz").write_bytes(data)
        assert message(folder).startswith(f"{path}.gz: the file cannot be read (")


def test_files_that_do_not_belong_together_are_refused(folder: Path) -> None:
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(5))
    assert "5 labels for the 4 images of train-images-idx3-ubyte" in message(folder)
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(4))
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(2, 2, 3))
    assert "images of (2, 3) pixels, those of training have (3, 2)" in message(folder)
    (folder / "t10k-images-idx3-ubyte").unlink()
    assert message(folder).startswith(f"{folder}: no t10k-images-idx3-ubyte, plain or as .gz")


# ---- as one layout of photos ---------------------------------------------------------------------

PREPROCESS = Preprocess(
    image_size=(24, 36), mode="squash", filter="bilinear", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)
)
PLAIN = Augmentation(transforms=(Resize.of(PREPROCESS),), preprocess=PREPROCESS)
RANDOM = Augmentation(
    transforms=(
        RandomResizedCrop((24, 36)),
        ColorJitter(brightness=0.3, hue=0.1),
        RandomHorizontalFlip(),
    ),
    preprocess=PREPROCESS,
    erasing=RandomErasing(value="random"),
)


@pytest.fixture
def clothes(tmp_path: Path) -> Path:
    """Noise of 10 × 15 pixels in three classes: 23 pictures to train on, 8 to test on."""
    rng = np.random.default_rng(0)
    for part, number in (("train", 23), ("t10k", 8)):
        pixels = rng.integers(0, 256, (number, 10, 15), dtype=np.uint8)
        labels = bytes(index % 3 for index in range(number))
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(
            idx(number, 10, 15, values=pixels.tobytes())
        )
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx(number, values=labels))
    return tmp_path


def numbers(photos: PhotoSet) -> list[int]:
    return [int(name) for name in photos.names]


def same_pictures(photos: PhotoSet, images: torch.Tensor, labels: torch.Tensor) -> bool:
    """Whether these are the pictures of a file that their names say."""
    assert photos.pixels is not None
    order = torch.tensor(numbers(photos))
    return torch.equal(photos.pixels, images[order]) and photos.labels == tuple(
        labels[order].tolist()
    )


def test_idx_files_are_split_like_any_photos(clothes: Path) -> None:
    data = read_idx(clothes)
    splits = read_photos(clothes, seed=4, held_out=0.3)
    assert splits.test is not None
    assert splits.class_names == ("0", "1", "2")
    assert splits.description == (
        "IDX files: 16 pictures of 3 classes to train on, 7 held out (seed 4), 8 to test on"
    )
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (16, 7, 8)
    assert {*numbers(splits.train), *numbers(splits.validation)} == set(range(23))
    assert numbers(splits.test) == list(range(8))
    for photos in (splits.train, splits.validation):
        assert same_pictures(photos, data.train_images, data.train_labels)
    assert same_pictures(splits.test, data.test_images, data.test_labels)
    assert splits.unreadable == ()


def test_the_order_is_a_permutation_drawn_with_the_seed(clothes: Path) -> None:
    """As runs before this layout drew it: held out is what comes first."""
    splits = read_photos(clothes, seed=4, held_out=0.3)
    order = torch.randperm(23, generator=torch.Generator().manual_seed(4)).tolist()
    assert numbers(splits.validation) + numbers(splits.train) == order
    assert read_photos(clothes, seed=4, held_out=0.3) == splits
    assert numbers(read_photos(clothes, seed=5).train) != numbers(splits.train)


def test_a_limit_keeps_the_first_pictures_and_is_in_the_description(clothes: Path) -> None:
    splits = read_photos(clothes, seed=4, held_out=0.3, limit=5)
    whole = read_photos(clothes, seed=4, held_out=0.3)
    assert numbers(splits.train) == numbers(whole.train)[:5]
    assert splits.validation == whole.validation
    assert splits.description.startswith("IDX files: 5 pictures of 3 classes to train on, 7 held")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sample_is_made_of_the_grey_picture_and_three_numbers(
    clothes: Path, workers: int
) -> None:
    data, photos = read_idx(clothes), read_photos(clothes, seed=4).train
    dataset = PhotoDataset(photos, RANDOM, seed=9)
    dataset.set_epoch(3)
    assert len(dataset) == 18
    batches = [list(range(10)), list(range(10, 18))]
    loaded = load_batches(dataset, batches, workers=workers)
    for batch, (images, labels) in zip(batches, loaded, strict=True):
        for index, image, label in zip(batch, images, labels, strict=True):
            number = numbers(photos)[index]
            grey = Image.fromarray(data.train_images[number].numpy())
            assert grey.mode == "L"
            assert torch.equal(image, RANDOM(grey, sample_rng(9, 3, index)))
            assert label == data.train_labels[number]


def test_a_picture_in_memory_opens_as_rgb_and_has_its_number_for_a_name(clothes: Path) -> None:
    photos = read_photos(clothes, seed=4).train
    dataset = PhotoDataset(photos, PLAIN)
    for index in (0, 7):
        picture = dataset.open_picture(index)
        assert (picture.mode, picture.size) == ("RGB", (15, 10))
        levels = read_idx(clothes).train_images[int(photos.names[index])].numpy()
        assert np.array_equal(np.asarray(picture), np.stack([levels] * 3, axis=-1))
        assert dataset.name(index) == f"picture {photos.names[index]}"
    with pytest.raises(IndexError):
        dataset[len(dataset)]
    with pytest.raises(ValueError, match="expected 0 or more"):
        dataset[-1]


def test_idx_files_measure_a_model_by_the_names_of_its_classes(clothes: Path) -> None:
    data = read_idx(clothes)
    photos = read_labelled(clothes, ["x", "2", "1", "0"])
    assert photos.description == "IDX files, test part"
    assert numbers(photos) == list(range(8))
    assert photos.labels == tuple(3 - label for label in data.test_labels.tolist())
    train = read_labelled(clothes, ["0", "1", "2"], split="train")
    assert train.description == "IDX files, train part"
    assert same_pictures(train, data.train_images, data.train_labels)


@pytest.mark.parametrize(
    ("class_names", "split", "words"),
    [
        ("01", None, "1 of 3 classes not known to the model: '2'; expected names as '0', '1'"),
        ("0120", None, "the model has 2 classes called '0'"),
        ("012", "validation", "no split validation; found train, test"),
    ],
)
def test_idx_files_that_do_not_fit_a_model(
    clothes: Path, class_names: str, split: Any, words: str
) -> None:
    with pytest.raises(BadDataError) as caught:
        read_labelled(clothes, list(class_names), split=split)
    assert str(caught.value).startswith(f"{clothes}: {words}")


@pytest.mark.parametrize(("held_out", "use"), [(0.001, "validate"), (0.999, "train")])
def test_a_part_of_idx_files_without_a_picture(clothes: Path, held_out: float, use: str) -> None:
    with pytest.raises(BadDataError, match=f"23 training pictures, none to {use} on; "):
        read_photos(clothes, seed=0, held_out=held_out)


def test_a_file_names_the_classes_of_idx_files_too(clothes: Path) -> None:
    before = read_photos(clothes, seed=0)
    names = [f"class {number}" for number in range(len(before.class_names))]
    (clothes / "classes.txt").write_text("\n".join(names))
    after = read_photos(clothes, seed=0)
    assert after.class_names == tuple(names) and after.train.labels == before.train.labels
    assert "names of classes: classes.txt" in after.description
    assert read_labelled(clothes, names).labels == read_labelled(clothes, before.class_names).labels
