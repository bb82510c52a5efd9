"""--box and --mask of visualize.py attention: a table of heads, ranked, beside the figure."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import minivit
from tests.commands.looked_into import complaint, save_photo, save_vit, visualize_


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_vit(tmp_path_factory.mktemp("weights"))


def shares(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("by", ["box", "mask"])
def test_the_shares_are_those_of_the_patches_below_the_region(
    by: str, turned: bool, tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A photo of 90 x 60: the model sees its middle square, in 4 x 4 patches of 15 pixels.

    The region, columns 30 to 60 and rows 15 to 45, is the four patches in the middle, in pixels of
    the upright photo even where the file lies on its side.
    """
    photo = save_photo(tmp_path / "dog.png")
    if turned:
        exif = Image.Exif()
        exif[274] = 6  # to be turned by 90 degrees clockwise
        lying = Image.open(photo).transpose(Image.Transpose.ROTATE_90)
        lying.save(photo, exif=exif)
    region = ["--box", "30,15,60,45"]
    if by == "mask":
        mask = np.zeros((60, 90), np.uint8)
        mask[15:45, 30:60] = 255
        Image.fromarray(mask).save(tmp_path / "mask.png")
        region = ["--mask", str(tmp_path / "mask.png")]
    words = ["attention", photo, "--weights", weights, "--out", tmp_path / "out", *region]
    assert visualize_(*words) == 0

    model = minivit.load_model(weights)
    upright = minivit.preprocess.open_image(photo)
    assert upright.size == (90, 60)
    with torch.no_grad():
        _, attentions = model(model.preprocess(upright)[None], return_attention=True)
    expected = {}
    for block, attention in enumerate(attentions):
        for head, row in enumerate(attention[0, :, 0, 1:].view(-1, 4, 4)):
            expected[block, head] = float(row[1:3, 1:3].sum() / row.sum())
    table = shares(tmp_path / "out" / "dog.csv")
    assert len(table) == len(expected) == 6
    order = sorted(expected, key=lambda each: -expected[each])
    assert [(int(row["block"]), int(row["head"])) for row in table] == order
    for rank, row in enumerate(table, start=1):
        share = expected[int(row["block"]), int(row["head"])]
        assert float(row["share"]) == pytest.approx(share, abs=2e-6)
        assert float(row["ratio"]) == pytest.approx(share / 0.25, abs=1e-5)
        assert (int(row["rank"]), float(row["area"])) == (rank, 0.25)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [str(tmp_path / "out" / f"dog.{ending}") for ending in ("png", "csv")]
    assert f"the {by} is 25.0% of what the model sees" in lines[2]
    assert f"block {order[0][0]}, head {order[0][1]}" in lines[3]

    assert visualize_(*words, "--block", "1", "--patch", "0,3", "--overwrite") == 0
    table = shares(tmp_path / "out" / "dog.csv")
    assert {row["block"] for row in table} == {"1"} and len(table) == 2
    with torch.no_grad():
        row = attentions[1][0, int(table[0]["head"]), 1 + 3, 1:].view(4, 4)
    share = float(row[1:3, 1:3].sum() / row.sum())
    assert float(table[0]["share"]) == pytest.approx(share, abs=2e-6)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ("30,15,60,61", "reaches beyond the photo, which is 90 pixels wide and 60 high"),
        ("0,0,14,60", "outside of what the model saw"),
    ],
)
def test_a_box_that_is_not_there_is_one_line(
    box: str, message: str, tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = save_photo(tmp_path / "dog.png")
    out = tmp_path / "out"
    assert visualize_("attention", photo, "--weights", weights, "--out", out, "--box", box) == 2
    line = complaint(capsys)
    assert message in line and "dog.png" in line and not out.exists()


@pytest.mark.parametrize("box", ["1,2,3", "5,0,5,9", "0,9,5,9", "-1,0,4,4", "a,b,c,d"])
def test_a_malformed_box_is_refused_at_once(box: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        visualize_("attention", f"--box={box}")
    assert stop.value.code == 2 and "expected X0,Y0,X1,Y1" in capsys.readouterr().err


def test_a_mask_of_another_size_or_for_two_photos_is_one_line(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = [save_photo(tmp_path / name) for name in ("one.png", "other.png")]
    mask = tmp_path / "mask.png"
    Image.fromarray(np.full((60, 60), 255, np.uint8)).save(mask)
    words = ["--weights", weights, "--out", tmp_path / "out", "--mask", mask]
    assert visualize_("attention", photos[0], *words) == 2
    assert "60x60 and its photo 90x60" in complaint(capsys)
    assert visualize_("attention", *photos, *words) == 2
    assert "belongs to one photo" in complaint(capsys)
