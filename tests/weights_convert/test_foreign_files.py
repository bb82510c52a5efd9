"""Files of other programs are named for what they are, by their content; checkpoints never are.

The files in tests/references/foreign/ are by the programs themselves. What would be too large there
is put together here as the format's specification says.
"""

from __future__ import annotations

import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from minivit import load_model
from minivit.checkpoint import CheckpointError
from minivit.weights import SHIPPED
from tests.weights_convert.test_conversion import weights
from weights_convert.__main__ import main
from weights_convert.foreign_files import foreign_kind
from weights_convert.reading import ConvertError, read

REFERENCES = Path(__file__).parents[1] / "references"
FOREIGN = REFERENCES / "foreign"
ONE_OF_EACH = {
    "plain.onnx": "an ONNX model",
    "torch.onnx": "an ONNX model",
    "tensor.gguf": "a GGUF model",
    "earliest.h5": "an HDF5 file (Keras, TensorFlow)",
    "latest.h5": "an HDF5 file (Keras, TensorFlow)",
    "params.msgpack": "Flax weights in MessagePack",
    "state.msgpack": "Flax weights in MessagePack",
    "module.mlx.safetensors": "weights in MLX's layout",
    "stated.mlx.safetensors": "weights in MLX's layout",
    "network.mlmodel": "a Core ML model",
    "program.mlpackage/Data/com.apple.CoreML/model.mlmodel": "a Core ML model",
    "openvino.xml": "an OpenVINO model",
    "layer.pdparams": "weights of PaddlePaddle",
    "paddle.pdiparams": "weights of PaddlePaddle",
    "paddle.json": "a program of PaddlePaddle",
    "graph.pb": "a TensorFlow graph",
    "saved_model/saved_model.pb": "a TensorFlow SavedModel",
    "model.tflite": "a TensorFlow Lite model",
    "checkpoint_1/model.ckpt": "a TensorFlow checkpoint",
    "checkpoint_2/model.ckpt.index": "a TensorFlow checkpoint",
}
WITH_NEIGHBOURS = {
    "openvino.bin": "weights of an OpenVINO model",
    "checkpoint_2/model.ckpt.data-00000-of-00001": "a TensorFlow checkpoint",
    "checkpoint_2/model.ckpt": "a TensorFlow checkpoint",  # no file, but how TensorFlow names it
    "checkpoint_2": "a TensorFlow checkpoint (model.ckpt.data-00000-of-00001)",
    "saved_model": "a TensorFlow SavedModel (saved_model.pb)",
    "program.mlpackage": "a Core ML model",
}


# ---- what they are -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ONE_OF_EACH)
@pytest.mark.parametrize("renamed", ["weights.pth", "no_ending"])
def test_a_file_is_known_by_its_content(name: str, renamed: str, tmp_path: Path) -> None:
    shutil.copy(FOREIGN / name, tmp_path / renamed)
    assert foreign_kind(tmp_path / renamed) == ONE_OF_EACH[name]


@pytest.mark.parametrize("name", WITH_NEIGHBOURS)
def test_files_without_a_mark_are_known_by_what_lies_beside_them(name: str) -> None:
    assert foreign_kind(FOREIGN / name) == WITH_NEIGHBOURS[name]


@pytest.mark.parametrize("name", ["openvino.bin", "checkpoint_2/model.ckpt.data-00000-of-00001"])
def test_alone_they_are_not_known(name: str, tmp_path: Path) -> None:
    shutil.copy(FOREIGN / name, tmp_path)
    assert foreign_kind(tmp_path / Path(name).name) is None


def test_every_stored_file_is_tested() -> None:
    stored = {str(path.relative_to(FOREIGN)) for path in FOREIGN.rglob("*") if path.is_file()}
    assert stored - {"program.mlpackage/Manifest.json"} <= ONE_OF_EACH.keys() | WITH_NEIGHBOURS


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        # loaders of ggml before GGUF: a number, written with its lowest byte first
        ((0x67676D6C).to_bytes(4, "little") + bytes(60), "a GGML model"),
        ((0x67676D66).to_bytes(4, "little") + bytes(60), "a GGML model"),
        ((0x67676A74).to_bytes(4, "little") + bytes(60), "a GGML model"),
        # framework.proto: blocks = {idx: 0, parent_idx: -1, vars: {name: "x"}}, version = {}
        (
            b"\x0a\x12\x08\x00\x10" + b"\xff" * 9 + b"\x01\x1a\x03\x0a\x01x\x22\x00",
            "a program of PaddlePaddle",
        ),
        # three arrays under their names, as flax.serialization.to_bytes writes a list
        (b"\xde\x00\x03\xa10\xc7\x0a\x01\x93\x91\x00" + bytes(30), "Flax weights in MessagePack"),
        (b"\xdf\x00\x00\x00\x01\xd9\x01w\xd6\x03" + bytes(30), "Flax weights in MessagePack"),
    ],
)
def test_files_put_together_by_their_specification(
    content: bytes, kind: str, tmp_path: Path
) -> None:
    (tmp_path / "weights").write_bytes(content)
    assert foreign_kind(tmp_path / "weights") == kind


def test_a_gguf_with_a_brace_where_a_safetensors_has_one(tmp_path: Path) -> None:
    """Its number of tensors is 123 in the place of the header's first character."""
    content = bytearray((FOREIGN / "tensor.gguf").read_bytes())
    content[8:16] = (123).to_bytes(8, "little")
    assert content[8:9] == b"{"
    (tmp_path / "weights").write_bytes(content)
    assert foreign_kind(tmp_path / "weights") == "a GGUF model"


@pytest.mark.parametrize("size", [512, 4096])
def test_hdf5_behind_a_block_of_the_users(size: int, tmp_path: Path) -> None:
    content = b"notes ".ljust(size, b" ") + (FOREIGN / "latest.h5").read_bytes()
    (tmp_path / "weights").write_bytes(content)
    assert foreign_kind(tmp_path / "weights") == "an HDF5 file (Keras, TensorFlow)"
    (tmp_path / "weights").write_bytes(b" " + content)  # in no place where HDF5 may begin
    assert foreign_kind(tmp_path / "weights") is None


def test_archives_of_keras_and_of_torchs_exporter(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "keras", "w") as archive:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(name, "{}")
    assert foreign_kind(tmp_path / "keras") == "a Keras model"

    program = torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),))
    torch.export.save(program, tmp_path / "program.pt2")
    assert foreign_kind(tmp_path / "program.pt2") == "a program of torch.export"


def test_a_folder_of_orbax(tmp_path: Path) -> None:
    for name in ("_CHECKPOINT_METADATA", "_METADATA", "manifest.ocdbt"):
        (tmp_path / name).write_bytes(b"{}")
    assert foreign_kind(tmp_path) == "an Orbax checkpoint (Flax, JAX)"


@pytest.mark.parametrize(
    ("stated", "kind"),
    [("tf", "weights of TensorFlow"), ("flax", "weights of Flax"), ("pt", None), ("np", None)],
)
def test_a_safetensors_may_state_another_layout(
    stated: str, kind: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"w": torch.ones(2, 2)}, path, metadata={"format": stated})
    assert foreign_kind(path) == kind


@pytest.mark.parametrize(
    ("shape", "is_mlx"),
    [
        ((4, 16, 16, 3), True),  # a patch embedding of MLX
        ((4, 16, 16, 1), True),
        ((4, 3, 16, 16), False),  # of torch
        ((4, 1, 16, 16), False),
        ((64, 64, 3, 3), False),  # kernels of a ResNet
        ((64, 3, 3, 3), False),
        ((1, 14, 14, 32), False),  # positions on a grid
    ],
)
def test_mlx_without_a_statement_is_known_by_its_kernels(
    shape: tuple[int, ...], is_mlx: bool, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    for metadata in (None, {"author": "somebody"}):
        save_file({"w": torch.ones(shape), "b": torch.ones(4)}, path, metadata=metadata)
        assert (foreign_kind(path) == "weights in MLX's layout") is is_mlx


@pytest.mark.parametrize("name", ["torch.onnx", "network.mlmodel", "graph.pb"])
def test_what_was_cut_off_is_still_known(name: str, tmp_path: Path) -> None:
    content = (FOREIGN / name).read_bytes()
    (tmp_path / "cut").write_bytes(content[: int(0.8 * len(content))])
    assert foreign_kind(tmp_path / "cut") == ONE_OF_EACH[name]


# ---- what they are not ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "npz", "compressed npz"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kept", [1, 0.5, 0.02])
def test_a_checkpoint_is_never_mistaken(
    kind: str, dtype: torch.dtype, kept: float, tmp_path: Path
) -> None:
    path = tmp_path / "weights.onnx"
    tensors = {name: tensor.to(dtype) for name, tensor in weights().items()}
    if kind == "safetensors":
        save_file(tensors, path)
    elif "npz" in kind:
        arrays = {name: tensor.float().numpy() for name, tensor in tensors.items()}
        with path.open("wb") as file:
            (np.savez if kind == "npz" else np.savez_compressed)(file, **arrays)
    else:
        torch.save({"model": tensors}, path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert foreign_kind(path) is None
    if kept == 1:
        assert read(path).tensors.keys() == tensors.keys()


@pytest.mark.parametrize(
    "path",
    [*SHIPPED.values(), *sorted(REFERENCES.glob("*.safetensors"))],
    ids=lambda path: path.name,
)
def test_a_safetensors_of_this_repository_is_never_mistaken(path: Path) -> None:
    assert foreign_kind(path) is None


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_is_never_mistaken(protocol: int, tmp_path: Path) -> None:
    content = {"model": {"w": np.eye(2)}, "epoch": 3}
    (tmp_path / "weights.bin").write_bytes(pickle.dumps(content, protocol))
    assert foreign_kind(tmp_path / "weights.bin") is None


@given(st.binary(max_size=200))
def test_nothing_is_read_into_noise(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "noise"
    path.write_bytes(b"\x08\x01" + noise)  # a first field that several kinds begin with
    assert foreign_kind(path) is None


@pytest.mark.parametrize(
    "content",
    [
        b"\x08\x0e\x12\x07pytorch",  # ir_version and producer_name, without a graph
        b"\x08\x0e\x3a\x03\x08\x01\x10",  # a graph that begins with a number
        b"\x08\x0e\x3a\x02\x0a\x00\x49" + bytes(8),  # a field that ONNX has not
        b"\x08\x01\x12\x02\x0a\x00",  # a SavedModel without a graph
        b"\x08\x05\x12\x04\x0a\x02ok",  # a description, but no model
        b"\x0a\x05\x0a\x03key",  # a node without an operation
        b"\x81\x01\xc7\x0a\x01" + bytes(10),  # a dictionary by number
        b"\x92\xa1w\xc7\x0a\x01" + bytes(10),  # a list
        b"\x81\xa1w\xc7\x0a\x05" + bytes(10),  # an extension that is not Flax's
        b"\x00" * 100,
        b"a text about TFL3 and GGUF\n",
        b'{"base_code": 1}',
        b"<?xml version='1.0'?><html></html>",
    ],
)
def test_what_only_begins_alike_is_not_known(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    assert foreign_kind(tmp_path / "file") is None


def test_an_index_or_a_page_beside_a_checkpoint_changes_nothing(tmp_path: Path) -> None:
    torch.save(weights(), tmp_path / "model.ckpt")
    shutil.copy(FOREIGN / "checkpoint_2/model.ckpt.index", tmp_path)
    shutil.copy(FOREIGN / "openvino.xml", tmp_path / "model.xml")
    assert foreign_kind(tmp_path / "model.ckpt") is None
    assert read(tmp_path / "model.ckpt").tensors.keys() == weights().keys()


# ---- what is said --------------------------------------------------------------------------------

ADVICE = (
    "which cannot be converted; give the checkpoint that it was exported from (.safetensors, .pth "
    "or .npz)"
)


@pytest.mark.parametrize(
    "name", [name for name in ONE_OF_EACH | WITH_NEIGHBOURS if "/Data/" not in name]
)
def test_the_command_answers_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir((FOREIGN / name).parent)
    typed = Path(name).name
    assert main([typed, "-o", str(tmp_path / "out.safetensors")]) == 2
    kind = (ONE_OF_EACH | WITH_NEIGHBOURS)[name]
    captured = capsys.readouterr()
    assert captured.err.endswith(f"{typed}: {kind}, {ADVICE}\n") and captured.err.count("\n") == 1
    assert captured.out == "" and list(tmp_path.iterdir()) == []


def test_other_weights_in_a_folder_do_not_matter(tmp_path: Path) -> None:
    """A folder of the hub has the same model for several programs."""
    (tmp_path / "onnx").mkdir()
    for name, target in (
        ("torch.onnx", "onnx/model.onnx"),
        ("latest.h5", "tf_model.h5"),
        ("params.msgpack", "flax_model.msgpack"),
        ("openvino.xml", "model.xml"),
    ):
        shutil.copy(FOREIGN / name, tmp_path / target)
    with pytest.raises(ConvertError) as caught:
        read(tmp_path)
    known = "Flax weights in MessagePack (flax_model.msgpack)"  # the first by its name
    assert str(caught.value) == f"{tmp_path}: {known}, {ADVICE}"

    save_file(weights(), tmp_path / "model.safetensors")
    assert read(tmp_path).tensors.keys() == weights().keys()


def test_a_folder_with_a_folder_of_onnx(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    shutil.copy(FOREIGN / "torch.onnx", tmp_path / "onnx" / "model.onnx")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConvertError, match=r"an ONNX model \(onnx/model.onnx\)"):
        read(tmp_path)


def test_what_is_not_known_is_one_whole_sentence(tmp_path: Path) -> None:
    """torch's message is several, about its own flags."""
    for name, content in (("text", b"not weights\n" * 9), ("pickle", pickle.dumps([1], 4))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConvertError) as caught:
            read(tmp_path / name)
        message = str(caught.value)
        assert message.startswith(f"{tmp_path / name}: not a checkpoint that torch can read (")
        assert message.endswith("); give a .safetensors, .pth or .npz")
        assert "weights_only" not in message and "documentation" not in message


def test_load_model_sends_to_the_converter() -> None:
    for name in ("torch.onnx", "tensor.gguf", "stated.mlx.safetensors", "saved_model"):
        with pytest.raises(CheckpointError, match=f"python -m weights_convert .*{name} -o"):
            load_model(FOREIGN / name)
