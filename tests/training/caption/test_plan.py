"""The plans of captioners: scenes and photos become samples, a captioner and a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import train
from minivit import load_model, save_model
from minivit.captioner import Captioner
from minivit.data.augmentation.pipeline import ColorJitter, RandomHorizontalFlip, RandomQuarterTurn
from minivit.data.captions.dataset import BadCaptionsError
from minivit.training.caption import plan as caption_plan
from minivit.training.caption import report as caption_report
from minivit.training.caption.data import (
    CaptionedImages,
    CaptionedPhotos,
    EncodedImages,
    make_augmentation,
)
from minivit.training.caption.plan import plan_captioner
from minivit.training.task import Plan
from tests.training.caption.recipes import SMALL, recipe

SCORES = {"BLEU-4": 0.5, "ROUGE-L": 0.25, "CIDEr-D": 1.0}


def no_bar(_title: str, _total: int) -> Any:
    return lambda _done: None


# ---- scenes --------------------------------------------------------------------------------------


def test_scenes_are_as_many_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caption_plan, "NUM_HELD_OUT", 5)
    for values, number in (
        ({"num_scenes": 12}, 12),
        ({"num_scenes": 12, "limit": 7}, 7),
        ({"num_scenes": 12, "limit": 70}, 12),  # the first so many, no more than there are
    ):
        plan = plan_captioner(recipe(**values), no_bar)
        assert (len(plan.train), len(plan.validation)) == (number, 5)
        assert f"{number} scenes" in plan.lines[0]


def test_scenes_are_encoded_once_behind_a_backbone_that_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(caption_plan, "NUM_HELD_OUT", 5)
    for rate, kind in ((0.0, EncodedImages), (1e-4, CaptionedImages)):
        plan = plan_captioner(recipe(num_scenes=12, backbone_lr=rate), no_bar)
        assert {type(plan.train), type(plan.validation)} == {kind}


def test_a_recipe_without_scenes_says_so() -> None:
    with pytest.raises(ValueError, match="num_scenes is 0, recipe 'catr_coco' is for photos"):
        plan_captioner(recipe("catr_coco", backbone="vit"), no_bar)


# ---- photos --------------------------------------------------------------------------------------


def table(folder: Path, *captions: str) -> str:
    """A CSV of photos of several sizes."""
    for index in range(len(captions)):
        Image.new("RGB", (40 + 8 * index, 48), (10 * index, 90, 200)).save(folder / f"{index}.png")
    rows = "".join(f'{index}.png,"{text}"\n' for index, text in enumerate(captions))
    (folder / "captions.csv").write_text("file,caption\n" + rows)
    return str(folder / "captions.csv")


def photo_plan(data: str, vocab: str, **values: Any) -> Plan:
    values = {"backbone": "vit", "max_length": 8, "augment": True} | values
    return plan_captioner(recipe("catr_coco", data=data, vocab=vocab, **values), no_bar)


def coco(folder: Path, *, missing: bool = False) -> str:
    """Two photos to train on and one to validate, which may be missing."""
    (folder / "annotations").mkdir(parents=True)
    for split, number in (("train", 2), ("val", 1)):
        (folder / f"{split}2017").mkdir()
        for index in range(number):
            if split == "train" or not missing:
                path = folder / f"{split}2017" / f"{index}.jpg"
                Image.new("RGB", (48, 32), (9, 60 * index, 100)).save(path)
        found = {
            "images": [{"id": index, "file_name": f"{index}.jpg"} for index in range(number)],
            "annotations": [
                {"id": index, "image_id": index, "caption": "a dog."} for index in range(number)
            ],
        }
        (folder / "annotations" / f"captions_{split}2017.json").write_text(json.dumps(found))
    return str(folder)


def test_a_tenth_is_held_out_where_there_is_no_validation_split(tmp_path: Path, vocab: str) -> None:
    plan = photo_plan(table(tmp_path, *["a dog of a cat"] * 20), vocab)
    assert (len(plan.train), len(plan.validation)) == (18, 2)
    assert "no validation split: 2 photos held out" in plan.lines[0]
    again = photo_plan(table(tmp_path, *["a dog of a cat"] * 20), vocab, limit=5)
    assert (len(again.train), len(again.validation)) == (5, 2)
    assert again.lines[0].endswith("; no validation split: 2 photos held out; the first 5 photos")


def test_a_validation_split_is_used(tmp_path: Path, vocab: str) -> None:
    plan = photo_plan(coco(tmp_path / "coco"), vocab)
    assert (len(plan.train), len(plan.validation)) == (2, 1)
    assert "held out" not in plan.lines[0]


def test_a_validation_split_that_cannot_be_used_is_not_replaced(tmp_path: Path, vocab: str) -> None:
    with pytest.raises(BadCaptionsError, match=r"captions_val2017.json: 1 of 1 pictures are miss"):
        photo_plan(coco(tmp_path / "coco", missing=True), vocab)


def test_validation_photos_are_not_augmented(tmp_path: Path, vocab: str) -> None:
    plan = photo_plan(table(tmp_path, *["a dog of a cat"] * 20), vocab)
    training, validation = plan.train, plan.validation
    assert isinstance(training, CaptionedPhotos) and isinstance(validation, CaptionedPhotos)
    preprocess = load_model("scenes").preprocess
    assert validation.photos.transform == make_augmentation(preprocess)
    assert training.photos.transform == make_augmentation(preprocess, colours=True, turns=True)


@pytest.mark.parametrize("text", ["a dog left of a cat", "on the Right, a dog", "left-hand side"])
def test_no_flips_where_captions_say_left(text: str, tmp_path: Path, vocab: str) -> None:
    """A mirrored photo would make them wrong."""
    for caption, said in ((text, True), ("a dog that is leftover, copyright", False)):
        plan = photo_plan(table(tmp_path, *["a dog"] * 3, caption, caption), vocab)
        assert ("no flips and quarter turns: " in plan.lines[0]) == said
        assert isinstance(plan.train, CaptionedPhotos)
        augmentation: Any = plan.train.photos.transform
        kinds = {type(transform) for transform in augmentation.transforms}
        assert ({RandomHorizontalFlip, RandomQuarterTurn} <= kinds) != said
        assert ColorJitter in kinds


def test_without_augmentation_nothing_is_said_of_flips(tmp_path: Path, vocab: str) -> None:
    plan = photo_plan(table(tmp_path, *["a dog left of a cat"] * 3), vocab, augment=False)
    assert "flips" not in plan.lines[0]
    assert isinstance(plan.train, CaptionedPhotos) and isinstance(plan.validation, CaptionedPhotos)
    assert plan.train.photos.transform == plan.validation.photos.transform


def test_a_captioner_is_judged_by_its_best_checkpoint(
    tmp_path: Path, vocab: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the words of the report cannot be had: the package for BLEU is not installed."""

    def missing(*_: Any) -> Any:
        raise caption_report.MissingPackageError("not here")

    plan = photo_plan(table(tmp_path, *["a dog of a cat"] * 4), vocab)
    model = plan.task.model
    assert isinstance(model, Captioner)
    save_model(model, tmp_path / "best.safetensors")
    monkeypatch.setattr(caption_report, "caption_scores", missing)
    lines, _ = plan.report(tmp_path, torch.device("cpu"))
    assert lines == ["no BLEU and CIDEr: not here"]
    monkeypatch.setattr(caption_report, "caption_scores", lambda _truth, _texts: SCORES)
    (line,) = plan.report(tmp_path, torch.device("cpu")).lines
    assert line == (
        "1 held-out photos, greedy captions: BLEU-4 0.500, ROUGE-L 0.250, CIDEr-D 1.000"
    )


# ---- the command ---------------------------------------------------------------------------------


def test_training_on_photos(
    tmp_path: Path, vocab: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A CSV of photos of several sizes and a small ResNet, the whole path."""
    monkeypatch.setattr(caption_report, "caption_scores", lambda _truth, _texts: SCORES)
    data = table(tmp_path, *[f"a dog of a cat {'.' * (index % 3)}" for index in range(6)])
    out = tmp_path / "run"
    settings = [f"--set={key}={value}" for key, value in SMALL.items()]
    words = [
        "caption", "--data", data, "--vocab", vocab, "--epochs", "1", "--batch-size", "4",
        *settings, "--set=backbone=resnet50", "--set=max_length=8", "--out", str(out),
    ]  # fmt: skip
    assert train.main(words) == 0
    printed = capsys.readouterr().out
    assert "1 photos held out" in printed and "epoch   1" in printed
    assert "BLEU-4 0.500" in (out / "report.md").read_text()
    captioner = load_model(out / "best.safetensors", expected=Captioner)
    assert isinstance(captioner.caption([Image.new("RGB", (50, 40))])[0].text, str)
    assert 'recipe = "catr_coco"\n' in (out / "recipe.toml").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere", "--vocab", "vocab.txt", "--set", "backbone=vit"], "nowhere"),
        (["--data", "captions.csv"], "give BERT's with --vocab vocab.txt"),
        (["--weights", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--lr=-1"], "lr is -1.0"),
        (["--backbone-lr=-1"], "backbone_lr is -1.0"),
        (["--label-smoothing", "1"], "label_smoothing is 1.0"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    vocab: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table(tmp_path, *["a dog"] * 3)
    monkeypatch.chdir(tmp_path)
    assert train.main(["caption", "--limit", "8", "--workers", "0", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.strip().count("\n") == 0
    assert not (tmp_path / "runs").exists()
