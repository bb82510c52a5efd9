"""Foreign files: nothing in them runs, nothing they claim is believed, damage is one sentence."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from weights_convert.reading import ConvertError, read

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def same(found: dict[str, Tensor]) -> bool:
    return found.keys() == WEIGHTS.keys() and all(
        torch.equal(found[name], tensor) for name, tensor in WEIGHTS.items()
    )


# ---- what is read ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "npz"])
@pytest.mark.parametrize("name", ["weights.pth", "weights.bin", "no_ending"])
def test_kinds_are_told_apart_by_content(kind: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if kind == "safetensors":
        save_file(WEIGHTS, path)
    elif kind == "npz":
        with path.open("wb") as file:
            np.savez(file, **{key: tensor.numpy() for key, tensor in WEIGHTS.items()})
    else:
        torch.save(WEIGHTS, path, _use_new_zipfile_serialization=kind == "zip")
    source = read(path)
    assert same(source.tensors) and source.is_numpy == (kind == "npz")


@pytest.mark.parametrize(
    ("content", "container"),
    [
        ({"model": WEIGHTS, "epoch": 3, "optimizer": {"state": {0: torch.ones(2)}}}, "model"),
        ({"state_dict": {f"module.{k}": v for k, v in WEIGHTS.items()}}, "state_dict"),
        ({"student": {"x": torch.ones(1)}, "teacher": WEIGHTS, "epoch": 1}, "teacher"),
        ({f"_orig_mod.{k}": v for k, v in WEIGHTS.items()}, ""),
        ({"model": WEIGHTS, "model_ema": {"x": torch.ones(1)}}, "model"),
        ({"model": WEIGHTS, "args": argparse.Namespace(lr=0.1, layers=[1, 2])}, "model"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_weights_are_found_in_training_checkpoints(
    content: dict[str, Any], container: str, zipped: bool, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "c.pth", _use_new_zipfile_serialization=zipped)
    source = read(tmp_path / "c.pth")
    assert same(source.tensors) and source.container == container


def test_bfloat16_comes_out_of_numpys_void(tmp_path: Path) -> None:
    values = torch.tensor([1.5, -2.0, 3.25], dtype=torch.bfloat16)
    np.savez(tmp_path / "b.npz", x=values.view(torch.int16).numpy().view("V2"))
    found = read(tmp_path / "b.npz").tensors["x"]
    assert found.dtype == torch.bfloat16 and torch.equal(found, values)


def test_a_hub_folder_brings_its_settings(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    (tmp_path / "preprocessor_config.json").write_text('{"size": 224}')
    for path in (tmp_path, tmp_path / "model.safetensors"):
        source = read(path)
        assert source.config == {"model_type": "vit"} and source.processor == {"size": 224}


# ---- what is refused: nothing runs ---------------------------------------------------------------


class Bomb:
    """Unpickled in the usual way it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("how", ["zip", "legacy", "plain pickle", "npz", "beside", "namespace"])
def test_a_hostile_file_runs_nothing(how: str, tmp_path: Path) -> None:
    path, proof = tmp_path / "weights.pth", tmp_path / "proof"
    bomb: Any = Bomb(proof)
    if how == "plain pickle":
        path.write_bytes(pickle.dumps(bomb))
    elif how == "npz":
        path = tmp_path / "weights.npz"
        np.savez(path, x=np.array([bomb], dtype=object))
    else:
        content = {
            "beside": {"model": WEIGHTS, "args": bomb},
            "namespace": {"model": WEIGHTS, "args": argparse.Namespace(x=bomb)},
        }.get(how, bomb)
        torch.save(content, path, _use_new_zipfile_serialization=how != "legacy")
    with pytest.raises(ConvertError) as caught:
        read(path)
    assert not proof.exists() and str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_hostile_file_is_hostile(tmp_path: Path) -> None:
    """Opened without the check it does its deed, so that the test above means something."""
    proof = tmp_path / "proof"
    torch.save(Bomb(proof), tmp_path / "weights.pth")
    torch.load(tmp_path / "weights.pth", weights_only=False)
    assert proof.exists()


def test_a_whole_module_is_refused_by_its_class(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pth")
    with pytest.raises(ConvertError, match=r"torch.nn.modules.linear.Linear.*state_dict"):
        read(tmp_path / "whole.pth")


def test_torchscript_is_refused(tmp_path: Path) -> None:
    with pytest.warns(Warning):  # that torch.jit will go
        torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "scripted.pt"))
    with pytest.raises(ConvertError, match=r"TorchScript archive.*torch\.jit\.load"):
        read(tmp_path / "scripted.pt")


# ---- what is refused: sizes ----------------------------------------------------------------------


def test_an_expanded_tensor_claims_more_than_is_there(tmp_path: Path) -> None:
    torch.save({"x": torch.ones(1).expand(1_000_000, 1_000_000)}, tmp_path / "wide.pth")
    with pytest.raises(ConvertError, match="x claims 4,000,000,000,000 bytes"):
        read(tmp_path / "wide.pth")


def test_an_old_file_with_a_huge_storage(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(WEIGHTS, buffer, _use_new_zipfile_serialization=False)
    # the storage's six numbers, K\x06, become 2,000,000,000 of them
    content = buffer.getvalue().replace(b"K\x06N", b"J" + struct.pack("<i", 2_000_000_000) + b"N")
    assert content != buffer.getvalue()
    (tmp_path / "huge.pth").write_bytes(content)
    with pytest.raises(ConvertError, match="claims a tensor of 2,000,000,000 numbers"):
        read(tmp_path / "huge.pth")


def test_a_npy_header_that_lies(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)}
    np.lib.format.write_array_header_1_0(buffer, header)
    with zipfile.ZipFile(tmp_path / "lies.npz", "w") as archive:
        archive.writestr("x.npy", buffer.getvalue() + bytes(16))
    with pytest.raises(ConvertError, match=r"x.npy claims 4,000,000,000,000 bytes"):
        read(tmp_path / "lies.npz")


def test_a_zip_bomb(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros(10_000_000, np.float32))
    with pytest.raises(ConvertError, match=r"x.npy claims 40,000,000 bytes"):
        read(tmp_path / "bomb.npz")
    np.savez_compressed(tmp_path / "fine.npz", x=np.random.default_rng(0).normal(size=10_000))
    assert read(tmp_path / "fine.npz").tensors["x"].shape == (10_000,)


def test_a_compressed_torch_file(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "w.pth")
    with (
        zipfile.ZipFile(tmp_path / "w.pth") as plain,
        zipfile.ZipFile(tmp_path / "c.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    with pytest.raises(ConvertError, match="compressed archive"):
        read(tmp_path / "c.pth")


# ---- what is refused: damage ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "npz"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.99])
def test_a_truncated_file_is_one_sentence(kind: str, kept: float, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    big = {"x": torch.randn(3000)}
    if kind == "safetensors":
        save_file(big, path)
    elif kind == "npz":
        with path.open("wb") as file:
            np.savez(file, x=big["x"].numpy())
    else:
        torch.save(big, path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ConvertError) as caught:
        read(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><html>not found</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a pointer of Git LFS"),
        (b"hello, I am a text file and nothing else\n" * 3, "not a checkpoint"),
        (bytes(1000), "not a checkpoint|truncated"),
    ],
)
def test_other_files_are_named_for_what_they_are(
    content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(ConvertError, match=message):
        read(tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("content", "found"),
    [([1, 2], "list"), ({"epoch": 3, "lr": 0.1}, "epoch, lr"), ({}, "nothing")],
)
def test_a_file_without_weights_says_what_it_has(content: Any, found: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "c.pth")
    with pytest.raises(ConvertError, match=f"no dictionary of weights in it; found {found}"):
        read(tmp_path / "c.pth")


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.pth: no such file"):
        read(tmp_path / "nowhere.pth")
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors"):
        read(tmp_path)


def test_broken_settings_are_named(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{not json")
    with pytest.raises(ConvertError, match=r"config.json: not JSON"):
        read(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ConvertError, match=r"config.json: expected an object"):
        read(tmp_path)
