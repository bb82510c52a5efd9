"""IDX files: read as specified, and refused where a byte is missing."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from minivit.data.errors import BadDataError
from minivit.data.photos.idx import FASHION_NAMES, has_idx, parse_idx, read_idx

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
        (idx(4, 3, 2) + b"\0", "25 values"),
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
