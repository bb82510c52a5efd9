"""What evaluate says of weights that name no classes, and of names that come from outside."""

from __future__ import annotations

import csv
import dataclasses
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import minivit
from minivit.training.classify.evaluate import evaluate_photos

NAMES = tuple(str(number) for number in range(12))
CONFIG = dataclasses.replace(minivit.ViTConfig.from_name("debug_patch8_32"), num_classes=12)


def always(path: Path, answer: int, labels: tuple[str, ...] | None = None, **config: Any) -> Path:
    """Weights whose highest output is the same for every picture."""
    model = minivit.VisionTransformer(dataclasses.replace(CONFIG, **config), labels=labels)
    if isinstance(model.head, torch.nn.Linear):
        torch.nn.init.zeros_(model.head.weight)
        with torch.no_grad():
            model.head.bias.zero_()[answer] = 1
    minivit.save_model(model, path)
    return path


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """Folders 0 to 11; all photos of val/ are of class 10."""
    place = tmp_path / "numbered"
    for split, names in (("train", NAMES), ("val", ("10",))):
        for name in names:
            (place / split / name).mkdir(parents=True)
            Image.new("RGB", (48, 32)).save(place / split / name / "a.png")
    return place


def evaluate(weights: Path, location: Path, **options: Any) -> tuple[str, list[str]]:
    """The lines for the user as one text, and complaints."""
    lines, complaints = evaluate_photos(
        weights,
        location,
        device=torch.device("cpu"),
        bar=lambda _title, _total: lambda _done: None,
        **options,
    )
    return "\n".join(lines), complaints


def answers(path: Path) -> list[str]:
    with path.open(newline="") as file:
        return [row["label"] for row in csv.DictReader(file)]


def test_weights_without_names_have_no_accuracy_until_somebody_says_what_they_mean(
    numbered: Path, tmp_path: Path
) -> None:
    """Output 2 is "10" where torchvision numbered the folders, and "2" where their names did."""
    weights, out = always(tmp_path / "w.safetensors", 2), tmp_path / "out.csv"
    text, _ = evaluate(weights, numbered, predictions=out)
    assert "% right" not in text and answers(out) == ["2"]
    (remark,) = (line for line in text.splitlines() if line.startswith(f"{weights}: "))
    assert "the weights name no classes, the answers are numbers, 0 to 11" in remark
    assert "no accuracy is known for the data's 12 classes" in remark
    assert "--labels imagefolder (torchvision's order: 0, 1, 10, 11, 2, …)" in remark
    assert "--labels numbers" in remark and "--labels FILE" in remark
    with pytest.raises(ValueError, match=r"no accuracy is known .*; or give --predictions OUT.csv"):
        evaluate(weights, numbered)
    text, _ = evaluate(weights, numbered, labels="imagefolder", predictions=out)
    assert "1 photos: 100.00 % right" in text and answers(out) == ["10"]
    assert "name no classes" not in text
    text, _ = evaluate(weights, numbered, labels="numbers", predictions=out)
    assert "1 photos: 0.00 % right" in text and answers(out) == ["2"]


def test_only_orders_that_fit_the_data_are_offered(numbered: Path, tmp_path: Path) -> None:
    weights = always(tmp_path / "w.safetensors", 2, num_classes=11)
    with pytest.raises(ValueError, match="--labels FILE") as caught:
        evaluate(weights, numbered)
    assert "imagefolder" not in str(caught.value) and "--labels numbers" not in str(caught.value)


def test_photos_without_labels_are_answered_by_number_or_by_a_given_name(tmp_path: Path) -> None:
    weights, out = always(tmp_path / "w.safetensors", 2), tmp_path / "out.csv"
    names = tmp_path / "names.txt"
    names.write_text("".join(f"class {number}\n" for number in range(12)))
    folder = tmp_path / "flat"
    folder.mkdir()
    Image.new("RGB", (48, 32)).save(folder / "a.png")
    text, _ = evaluate(weights, folder, predictions=out)
    assert answers(out) == ["2"]
    assert "the answers are numbers, 0 to 11; to have names, give --labels FILE" in text
    text, _ = evaluate(weights, folder, predictions=out, labels=str(names))
    assert answers(out) == ["class 2"] and "numbers" not in text


def test_names_against_those_of_the_weights_are_said(numbered: Path, tmp_path: Path) -> None:
    weights = always(tmp_path / "w.safetensors", 2, NAMES)
    text, _ = evaluate(weights, numbered)
    assert "1 photos: 0.00 % right" in text and "--labels" not in text
    text, _ = evaluate(weights, numbered, labels="numbers")
    assert "against" not in text  # the same names
    text, _ = evaluate(weights, numbered, labels="imagefolder")
    assert "1 photos: 100.00 % right" in text
    assert (
        "--labels imagefolder is used against the weights' own names: output 2 is '10', the "
        "weights say '2'"
    ) in text


def test_given_names_that_are_not_those_of_the_data(numbered: Path, tmp_path: Path) -> None:
    weights, names = always(tmp_path / "w.safetensors", 2), tmp_path / "names.txt"
    names.write_text("".join(f"class {number}\n" for number in range(12)))
    with pytest.raises(ValueError, match="1 of 1 class not known to the model: '10'"):
        evaluate(weights, numbered, labels=str(names))


def test_labels_of_idx_files_are_numbers_until_they_have_names(tmp_path: Path) -> None:
    for part in ("train", "t10k"):
        for kind, values in (("images-idx3", np.zeros((4, 28, 28))), ("labels-idx1", np.arange(4))):
            head = bytes((0, 0, 8, values.ndim))
            head += b"".join(size.to_bytes(4, "big") for size in values.shape)
            data = gzip.compress(head + values.astype(np.uint8).tobytes())
            (tmp_path / f"{part}-{kind}-ubyte.gz").write_bytes(data)
    weights = always(tmp_path / "w.safetensors", 2, num_classes=4)
    with pytest.raises(ValueError, match="--labels numbers"):
        evaluate(weights, tmp_path)
    text, _ = evaluate(weights, tmp_path, labels="numbers")
    assert "IDX files, test part\n4 photos: 25.00 % right" in text


def test_a_model_without_a_head_tells_no_classes(numbered: Path, tmp_path: Path) -> None:
    weights = always(tmp_path / "w.safetensors", 0, num_classes=0)
    with pytest.raises(ValueError, match="a model without a head, which tells no classes"):
        evaluate(weights, numbered, predictions=tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("labelled", [True, False])
def test_a_photo_that_goes_away_after_the_check_is_named_and_the_others_are_answered(
    tmp_path: Path, labelled: bool, workers: int
) -> None:
    weights, out = always(tmp_path / "w.safetensors", 2, NAMES), tmp_path / "out.csv"
    folder = tmp_path / "photos"
    place = folder / "2" if labelled else folder
    place.mkdir(parents=True)
    for name in "abcde":
        Image.new("RGB", (48, 32)).save(place / f"{name}.png")

    def bar(title: str, _total: int) -> Callable[[int], object]:
        if title == "classifying":
            (place / "b.png").unlink()
        return lambda _done: None

    lines, complaints = evaluate_photos(
        weights,
        folder,
        predictions=out,
        batch_size=2,
        workers=workers,
        device=torch.device("cpu"),
        bar=bar,
    )
    (complaint,) = complaints
    assert complaint.startswith(f"{place / 'b.png'}: no such file")
    with out.open(newline="") as file:
        names = [Path(row["filename"]).name for row in csv.DictReader(file)]
    assert names == ["a.png", "c.png", "d.png", "e.png"]
    assert any("4 answers" in line for line in lines)
    assert not labelled or any("4 photos: 100.00 % right" in line for line in lines)


def test_nothing_is_left_of_photos_that_all_go_away(tmp_path: Path) -> None:
    weights, out = always(tmp_path / "w.safetensors", 2, NAMES), tmp_path / "out.csv"
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (48, 32)).save(folder / "a.png")

    def bar(title: str, _total: int) -> Callable[[int], object]:
        if title == "classifying":
            (folder / "a.png").unlink()
        return lambda _done: None

    with pytest.raises(ValueError, match="all photos went away"):
        evaluate_photos(weights, folder, predictions=out, device=torch.device("cpu"), bar=bar)
    assert not out.exists()
