"""visualize.py doctor: its page and its lines, and what it says about bad input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

import minivit
from minivit import Preprocess
from minivit.explain import class_attention, outlier_tokens
from minivit.explain.describe.doctor import examine, longest_tokens_block
from minivit.preprocess import open_image
from tests.commands.looked_into import (
    complaint,
    save_captioner,
    save_photo,
    save_vit,
    visualize_,
)


def squashing(folder: Path) -> Path:
    """Weights whose transform squashes, to a grid of twice as many rows and columns."""
    path = save_vit(folder)
    model = minivit.load_model(path)
    model.preprocess = Preprocess(
        image_size=(64, 64), mode="squash", filter="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3
    )
    minivit.save_model(model, path)
    return path


def test_a_healthy_scene_is_called_so_with_all_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert visualize_("doctor", "--out", tmp_path) == 0
    path, first, second, numbers = capsys.readouterr().out.splitlines()
    remark = "drawn by scenes.safetensors, shipped with minivit"
    assert path == f"{tmp_path / 'scene.png'}: {remark}" and first == "Nothing found"
    assert second == "Looked at and below the threshold (in brackets)"
    assert len(numbers.split("; ")) == 8 and "outlier tokens 1.3" in numbers
    with Image.open(tmp_path / "scene.png") as picture:
        assert picture.width > 1000
    assert [file.name for file in tmp_path.iterdir()] == ["scene.png"]


def test_the_page_has_the_maps_and_the_lines_have_the_findings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def doctor_figure(*given: Any, **options: Any) -> Figure:
        calls.append(SimpleNamespace(given=given, **options))
        return Figure(figsize=(0.2, 0.2))

    monkeypatch.setattr("minivit.viz.doctor_figure", doctor_figure)
    weights = squashing(tmp_path)
    photo, out = save_photo(tmp_path / "wide.png", width=180), tmp_path / "out"
    assert visualize_("doctor", photo, "--weights", weights, "--out", out) == 0
    model, picture = minivit.load_model(weights), open_image(photo)
    images = model.preprocess(picture)[None]
    ((seen, attention, norms, symptoms), block) = calls[0].given, calls[0].block
    assert seen.tobytes() == model.preprocess.view(picture).tobytes() and seen.size == (64, 64)
    with torch.no_grad():
        rows = model(images, return_attention=[-1])[1]
    torch.testing.assert_close(attention, class_attention(rows)[0], atol=1e-6, rtol=0)
    assert block == longest_tokens_block(model, images)
    torch.testing.assert_close(norms, outlier_tokens(model, images, block=block).norms[0])
    assert symptoms == examine(model, images, photo_size=(180, 60))
    assert calls[0].heading.startswith("wide.png")

    path, count, *lines = capsys.readouterr().out.splitlines()
    present = [symptom for symptom in symptoms if symptom.is_present]
    assert path == str(out / "wide.png")
    assert count == f"{len(present)} findings, worst first" and len(present) >= 2
    names = [line.split(":")[0] for line in lines[:-2:2]]
    assert names == [symptom.name for symptom in present]
    assert "squashed photo: 3 (threshold 1.25)" in lines
    assert "resolution: 2 (threshold 1.5)" in lines
    for symptom, line in zip(present, lines[1:-2:2], strict=True):
        assert line == f"  {symptom.text}. What to do: {symptom.advice}."


@pytest.mark.parametrize(
    ("dtype", "flags", "name"),
    [
        (torch.bfloat16, [], "in bfloat16"),
        (torch.float16, [], "in float16"),
        (torch.float32, ["--dtype", "bf16"], "in bfloat16"),
        (torch.bfloat16, ["--dtype", "fp16"], "in float16"),
        (torch.float32, [], None),
    ],
)
def test_the_precision_of_the_file_or_of_the_flag_is_compared(
    dtype: torch.dtype,
    flags: list[str],
    name: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts: list[str] = []

    def doctor_figure(*given: Any, **options: Any) -> Figure:
        texts.extend(each.text for each in given[3] if each.name == "half precision")
        return Figure(figsize=(0.2, 0.2))

    monkeypatch.setattr("minivit.viz.doctor_figure", doctor_figure)
    weights = save_vit(tmp_path)
    minivit.save_model(minivit.load_model(weights), weights, dtype=dtype)
    photo = save_photo(tmp_path / "noise.png")
    words = ["--weights", weights, "--out", tmp_path / "out"]
    assert visualize_("doctor", photo, *words, *flags) == 0
    assert [text.split(" a weight")[0] for text in texts] == ([] if name is None else [name])


def test_a_model_without_a_head_has_a_page_too(tmp_path: Path) -> None:
    weights, photo = save_vit(tmp_path, num_classes=0), save_photo(tmp_path / "noise.png")
    assert visualize_("doctor", photo, "--weights", weights, "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "noise.png").exists()


def test_bad_input_is_answered_in_one_line_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, out = save_photo(tmp_path / "noise.png"), tmp_path / "out"
    plain = save_vit(tmp_path, class_token=False, pooling="mean")
    captioner = save_captioner(tmp_path)
    damaged = tmp_path / "damaged.safetensors"
    model = minivit.load_model("scenes")
    model.patch_embed.proj.weight.data[0] = float("nan")
    minivit.save_model(model, damaged)
    for weights, message in (
        (plain, "the model has no class token, whose map this page is about"),
        (
            captioner,
            "holds a Captioner, doctor needs a VisionTransformer; use visualize.py caption",
        ),
        (damaged, "patch_embed.proj.weight holds 192 NaN or infinite of"),
    ):
        assert visualize_("doctor", photo, "--weights", weights, "--out", out) == 2
        assert message in complaint(capsys), message
        assert not out.exists()


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys, visualize\n"
        "for word in ('ablate', 'doctor'):\n"
        "    try: visualize.main([word, '--help'])\n"
        "    except SystemExit: print(bool({'torch', 'numpy', 'PIL', 'tqdm'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    lines = result.stdout.splitlines()
    assert lines.count("False") == 2 and "True" not in lines, result.stdout + result.stderr
    assert "--dtype {stored,bf16,fp16}" in result.stdout
