"""Names that steer a terminal, from wherever they come: no command prints or writes them raw."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image

import minivit
import train
import visualize
from weights_convert import __main__ as converter

STEERING = "\x1b]0;title\a\x1b[31m\u202e"
"""Sets a window's title, rings, colours, and turns the order of letters round."""
VISIBLE = r"\x1b]0;title\x07\x1b[31m\u202e"
COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "visualize.py": visualize.main,
    "train.py": train.main,
    "weights_convert": converter.main,
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of things whose names steer, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    config = minivit.ViTConfig.from_name("debug_patch8_32", num_classes=2)
    model = minivit.VisionTransformer(config, labels=[f"a{STEERING}", "=cmd()"])
    torch.nn.init.normal_(model.head.weight)
    minivit.save_model(model, f"w{STEERING}.safetensors")
    for label in model.labels or ():
        folder = tmp_path / f"data{STEERING}" / label
        folder.mkdir(parents=True)
        Image.new("RGB", (40, 32)).save(folder / f"-p{STEERING}.png")
    Image.new("RGB", (40, 32)).save(f"p{STEERING}.png")
    weights = {f"x{STEERING}": torch.ones(2), "two\nlines": torch.ones(2)}
    safetensors.torch.save_file(weights, "foreign.safetensors")
    description = {
        "version": 1,
        "architecture": "VisionTransformer",
        "config": config.to_dict() | {f"z{STEERING}": 1},
        "preprocess": model.preprocess.to_dict(),
        "labels": None,
        "tokenizer": None,
    }
    text = json.dumps(description)
    safetensors.torch.save_file(weights, "lie.safetensors", metadata={"minivit": text})
    return tmp_path


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["visualize.py", "attention", "p@.png", "no@.png", "--weights", "w@.safetensors"], 2),
        (["visualize.py", "explain", "p@.png", "--weights", "w@.safetensors",
          "--methods", "attention", "--target", "no@"], 2),
        (["visualize.py", "ablate", "p@.png", "--weights", "w@.safetensors"], 0),
        (["visualize.py", "doctor", "p@.png", "--weights", "w@.safetensors"], 0),
        (["visualize.py", "model", "p@.png", "--weights", "w@.safetensors"], 0),
        (["visualize.py", "positions", "--weights", "no@.safetensors"], 2),
        (["visualize.py", "score", "--data", "data@/=cmd()", "--weights", "w@.safetensors",
          "--methods", "centre"], 0),
        (["visualize.py", "attention", "p@.png", "--weights", "lie.safetensors"], 2),
        (["train.py", "evaluate", "--data", "data@", "--weights", "w@.safetensors"], 0),
        (["train.py", "classify", "--data", "data@", "--weights", "w@.safetensors", "--epochs", "1",
          "--set", "image_size=32", "--workers", "0"], 2),
        (["train.py", "classify", "--recipe", "no@"], 2),
        (["weights_convert", "foreign.safetensors"], 2),
        (["weights_convert", "w@.safetensors", "--to", "timm"], 0),
        (["weights_convert", "no@"], 2),
    ],
)  # fmt: skip
def test_no_name_steers_the_terminal_or_a_report(
    place: Path, words: list[str], status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    command, *flags = (word.replace("@", STEERING) for word in words)
    if command == "weights_convert":
        flags += ["-o", f"out{STEERING}.safetensors"]
    elif "evaluate" in flags:
        flags += ["--predictions", f"out{STEERING}.csv", "--workers", "0"]
    else:
        flags += ["--out", f"out{STEERING}"]
    assert COMMANDS[command](flags) == status
    captured = capfd.readouterr()
    for steering in ("\x1b", "\a", "\u202e"):
        assert steering not in captured.out and steering not in captured.err
    if "foreign" not in str(words) and "attention" not in str(words):
        assert VISIBLE in captured.out + captured.err  # it is shown, not left out
    for path in place.rglob("*"):
        if path.suffix in (".md", ".csv", ".toml"):
            content = path.read_bytes()
            assert b"\x1b" not in content and b"\a" not in content


def test_answers_cannot_be_computed_by_a_table_program(place: Path) -> None:
    data, weights = f"data{STEERING}", f"w{STEERING}.safetensors"
    words = ["evaluate", "--data", data, "--weights", weights, "--workers", "0"]
    assert train.main([*words, "--predictions", "out.csv"]) == 0
    with open("out.csv", newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert cells[:2] == ["filename", "label"]
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)
    assert any(cell.startswith("'=") for cell in cells)
