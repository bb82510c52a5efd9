"""visualize.py ablate: figure, table and lines, and what it says about bad input."""

from __future__ import annotations

import copy
import csv
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import minivit
from minivit.commands.target import class_number
from minivit.explain import intervene
from minivit.preprocess import open_image
from tests.commands.looked_into import (
    complaint,
    save_captioner,
    save_photo,
    save_vit,
    visualize_,
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_vit(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def captioner_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_captioner(tmp_path_factory.mktemp("weights"))


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def log_probability(model: Any, photo: Path, number: int | None) -> tuple[float, int]:
    """Of a class, or of the predicted one, and the class's number."""
    with torch.no_grad():
        values = model(model.preprocess(open_image(photo))[None]).log_softmax(1)[0]
    number = int(values.argmax()) if number is None else number
    return float(values[number]), number


def without_zeroed(model: Any, block: int, head: str) -> Any:
    """The model with a head's columns of the projection, or the second layer of an MLP, zeroed."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        if head:
            start = 16 * int(head)
            other.blocks[block].attn.proj.weight[:, start : start + 16] = 0
        else:
            other.blocks[block].mlp.fc2.weight.zero_()
            other.blocks[block].mlp.fc2.bias.zero_()
    return other


@pytest.mark.parametrize(
    ("flags", "number", "name"),
    [
        ([], None, None),
        (["--target", "bee"], 1, "bee"),
        (["--target", "4"], 4, "elk"),
        (["--target", "3"], 2, "3"),  # a label goes before a number
    ],
)
def test_the_table_is_what_zeroing_by_hand_gives(
    flags: list[str],
    number: int | None,
    name: str | None,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    photo, out = save_photo(tmp_path / "noise.png"), tmp_path / "out"
    assert visualize_("ablate", photo, "--weights", weights, "--out", out, *flags) == 0
    assert sorted(path.name for path in out.iterdir()) == ["noise.csv", "noise.png"]
    with Image.open(out / "noise.png") as picture:
        assert picture.width > 1000

    model = minivit.load_model(weights)
    before, chosen = log_probability(model, photo, number)
    rows = read(out / "noise.csv")
    places = [(row["block"], row["part"], row["head"]) for row in rows]
    assert places == [
        (str(block), *part)
        for block in range(3)
        for part in (("head", "0"), ("head", "1"), ("mlp", ""))
    ]
    for row in rows:
        assert row["where"] == "block" and row["target"] == (name or model.labels[chosen])
        after, _ = log_probability(
            without_zeroed(model, int(row["block"]), row["head"]), photo, chosen
        )
        assert float(row["log_probability"]) == pytest.approx(before, abs=1e-5)
        assert float(row["without"]) == pytest.approx(after, abs=1e-5)
        assert float(row["change"]) == pytest.approx(after - before, abs=1e-5)
    assert max(abs(float(row["change"])) for row in rows) > 0.01

    figure, table, first, *lines = capsys.readouterr().out.splitlines()
    assert (figure, table) == (str(out / "noise.png"), str(out / "noise.csv"))
    kind = "predicted class" if name is None else "class"
    assert first == f"{kind}: {name or model.labels[chosen]}: log-probability {before:.4f}"
    strongest = sorted(rows, key=lambda row: -abs(float(row["change"])))
    assert [float(line.split()[0]) for line in lines] == pytest.approx(
        [float(row["change"]) for row in strongest], abs=1e-4
    )
    part = f"head {strongest[0]['head']}" if strongest[0]["head"] else "MLP"
    assert lines[0].endswith(f"  block {strongest[0]['block']}, {part}")


def test_the_ten_strongest_are_printed_and_chosen_parts_ranked(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert visualize_("ablate", "--out", tmp_path) == 0  # 4 blocks of 3 heads and MLPs
    assert len(capsys.readouterr().out.splitlines()) == 2 + 1 + 10
    assert len(read(tmp_path / "scene.csv")) == 16
    for parts, count in (("heads", 12), ("mlps", 4)):
        assert visualize_("ablate", "--parts", parts, "--out", tmp_path, "--overwrite") == 0
        rows = read(tmp_path / "scene.csv")
        assert [row["part"] for row in rows] == [parts.removesuffix("s")] * count


def test_a_part_is_replaced_by_its_mean(weights: Path, tmp_path: Path) -> None:
    photo = save_photo(tmp_path / "noise.png")
    words = ["--weights", weights, "--replace", "mean", "--target", "dog"]
    assert visualize_("ablate", photo, *words, "--out", tmp_path / "out", "--overwrite") == 0
    model = minivit.load_model(weights)
    before, _ = log_probability(model, photo, 3)
    rows = read(tmp_path / "out" / "noise.csv")
    with intervene(model, heads={1: [1]}, by="mean"):
        after, _ = log_probability(model, photo, 3)
    (row,) = [row for row in rows if (row["block"], row["head"]) == ("1", "1")]
    assert float(row["change"]) == pytest.approx(after - before, abs=1e-5)


def test_photos_of_one_name_get_a_table_each_and_a_bad_one_is_named(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "b").mkdir()
    photos = [save_photo(tmp_path / "x.png"), save_photo(tmp_path / "b" / "x.png")]
    bad = tmp_path / "bad.jpg"
    bad.write_text("no picture")
    out = tmp_path / "out"
    assert visualize_("ablate", photos[0], bad, photos[1], "--weights", weights, "--out", out) == 2
    names = ["x-2.csv", "x-2.png", "x.csv", "x.png"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert "bad.jpg: not a picture" in capsys.readouterr().err


# ---- captions ------------------------------------------------------------------------------------


def test_a_caption_is_ranked_with_all_its_words(
    captioner_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = save_photo(tmp_path / "noise.png")
    out = tmp_path / "out"
    words = ["ablate", photo, "--weights", captioner_weights, "--out", out]
    assert visualize_(*words) == 0
    rows = read(out / "noise.csv")
    (caption,) = minivit.load_model(captioner_weights).caption([open_image(photo)])
    targets = [f"{place} {word.text}" for place, word in enumerate(caption.words)]
    targets += ["end"] if caption.end_log_prob is not None else []
    assert list(dict.fromkeys(row["target"] for row in rows)) == ["caption", *targets]
    before = {row["target"]: float(row["log_probability"]) for row in rows}
    for place, word in enumerate(caption.words):
        assert before[targets[place]] == pytest.approx(word.log_prob, abs=1e-4)
    assert before["caption"] == pytest.approx(sum(before[t] for t in targets), abs=1e-4)

    places: dict[tuple[str, ...], dict[str, float]] = {}
    for row in rows:
        place = (row["where"], row["block"], row["head"])
        places.setdefault(place, {})[row["target"]] = float(row["change"])
    wheres = [place[0] for place in places if place[2] == "0"]
    assert wheres == ["ViT"] * 2 + ["encoder"] + ["decoder words", "decoder cells"] * 2
    for changes in places.values():
        assert changes["caption"] == pytest.approx(sum(changes[t] for t in targets), abs=1e-4)
    printed = capsys.readouterr().out.splitlines()
    assert printed[2].startswith(f"“{caption.text}”: log-probability {before['caption']:.4f}")
    assert len(printed) == 2 + 1 + 10

    chosen = f"{len(caption.words) - 1} {caption.words[-1].text}"
    assert visualize_(*words, "--overwrite", "--target", len(caption.words) - 1) == 0
    assert read(out / "noise.csv")[0]["target"] == chosen
    printed = capsys.readouterr().out.splitlines()
    changes = sorted(abs(changes[chosen]) for changes in places.values())[::-1]
    assert [abs(float(line.split()[0])) for line in printed[3:]] == pytest.approx(
        changes[:10], abs=1e-4
    )
    text = caption.words[0].text  # the first of equal words
    assert visualize_(*words, "--overwrite", "--target", text) == 0
    assert read(out / "noise.csv")[0]["target"] == f"0 {text}"


def test_the_end_of_a_caption_counts_as_a_word(captioner_weights: Path, tmp_path: Path) -> None:
    captioner = minivit.load_model(captioner_weights)
    with torch.no_grad():
        captioner.head[2].bias[captioner.tokenizer.end_id] = 0.5  # it was to say words only
    weights, photo = tmp_path / "ends.safetensors", save_photo(tmp_path / "noise.png")
    minivit.save_model(captioner, weights)
    (caption,) = captioner.caption([open_image(photo)])
    assert caption.words and caption.end_log_prob is not None
    assert abs(caption.end_log_prob - caption.log_probs[-1]) > 0.01
    words = ["--weights", weights, "--parts", "mlps", "--out", tmp_path / "out"]
    assert visualize_("ablate", photo, *words) == 0
    rows = read(tmp_path / "out" / "noise.csv")
    before = {row["target"]: float(row["log_probability"]) for row in rows}
    assert before["end"] == pytest.approx(caption.end_log_prob, abs=1e-4)
    whole = sum(caption.log_probs) + caption.end_log_prob
    assert before["caption"] == pytest.approx(whole, abs=1e-4)


def test_a_word_that_is_not_in_the_caption_is_said_for_its_photo(
    captioner_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, out = save_photo(tmp_path / "noise.png"), tmp_path / "out"
    words = ["ablate", photo, "--weights", captioner_weights, "--out", out]
    for target in ("zebra", "99"):
        assert visualize_(*words, "--target", target) == 2
        line = complaint(capsys)
        assert str(photo) in line and f"--target {target}: the caption is" in line
        assert not out.exists()


# ---- bad input -----------------------------------------------------------------------------------


def test_bad_input_is_answered_in_one_line_and_nothing_is_written(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, out = save_photo(tmp_path / "noise.png"), tmp_path / "out"
    headless = save_vit(tmp_path, num_classes=0)
    cases: list[tuple[list[object], str]] = [
        (["--weights", weights, "--target", "cat"], "--target cat: no class is called 'cat'"),
        (["--weights", weights, "--target", "5"], "--target 5: class 5: choose from 0 to 4"),
        (["--weights", weights, "--target", "-1"], "--target -1: class -1: choose from 0 to"),
        (["--weights", headless], "the model has no head"),
        (["--weights", headless, "--target", "0"], "the model has no head"),
        (["--weights", tmp_path / "none.safetensors"], "no such file"),
        (["--weights", weights, "--seed", "-1"], "--seed -1"),
    ]
    for words, message in cases:
        pictures = [] if "--seed" in words else [photo]
        assert visualize_("ablate", *pictures, *words, "--out", out) == 2
        assert message in complaint(capsys), message
        assert not out.exists()


@pytest.mark.parametrize(
    "words", [["--target", ""], ["--target", " "], ["--parts", ""], ["--replace", "noise"]]
)
def test_flags_that_make_no_sense_end_the_command(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        visualize_("ablate", *words)
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("taken", ["noise.png", "noise.csv"])
def test_what_cannot_be_written_leaves_nothing(
    taken: str, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, out = save_photo(tmp_path / "noise.png"), tmp_path / "out"
    (out / taken).mkdir(parents=True)
    assert visualize_("ablate", photo, "--weights", weights, "--out", out) == 2
    line = complaint(capsys)
    assert taken in line and "choose another --out" in line
    assert [path.name for path in out.iterdir()] == [taken]


def test_labels_numbers_and_two_classes_of_one_name() -> None:
    config = minivit.ViTConfig.from_name("debug_patch8_32", num_classes=3)
    model = minivit.VisionTransformer(config, labels=["ant", "2", "ant"])
    assert [class_number(model, text) for text in ("2", "0")] == [1, 0]
    with pytest.raises(ValueError, match=re.escape("--target ant: 2 classes are called 'ant'")):
        class_number(model, "ant")
    plain = minivit.VisionTransformer(config)
    assert class_number(plain, "2") == 2
    with pytest.raises(ValueError, match="use numbers"):
        class_number(plain, "ant")
