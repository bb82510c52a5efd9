"""One file holds a model: what comes back, what is refused, and what survives a failure."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

import minivit
from minivit import CheckpointError, Preprocess, VisionTransformer, ViTConfig
from minivit.weights import SHIPPED
from tests.references.seeded import seeded_weights

PICTURES = (1, 3, 32, 48)


def make_model(**options: Any) -> VisionTransformer:
    config = ViTConfig.from_name(
        "debug_patch8_32", **({"image_size": (32, 48), "num_classes": 3} | options)
    )
    preprocess = Preprocess(
        image_size=config.image_size,
        mode="squash",
        filter="bilinear",
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.4),
    )
    model = VisionTransformer(config, preprocess=preprocess, labels=["ä", "b <&>", "c"])
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    model.load_state_dict(seeded_weights(shapes, 0))
    return model.eval()


@pytest.fixture
def model() -> VisionTransformer:
    return make_model(num_register_tokens=2, layer_scale=0.1)


@pytest.fixture
def file(tmp_path: Path, model: VisionTransformer) -> Path:
    path = tmp_path / "model.safetensors"
    minivit.save_model(model, path)
    return path


def rewrite(
    file: Path,
    *,
    describe: Callable[[dict[str, Any]], Any] = lambda description: description,
    tensors: Callable[[dict[str, Tensor]], None] = lambda tensors: None,
) -> None:
    """Saves the file again with another description or other tensors."""
    with safe_open(file, framework="pt") as opened:
        description = json.loads(opened.metadata()["minivit"])
        held = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
    description = describe(description)
    tensors(held)
    safetensors.torch.save_file(held, file, metadata={"minivit": json.dumps(description)})


# ---- there and back ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_register_tokens": 2, "layer_scale": 0.1, "pos_embed_prefix": False},
        {"distillation_token": True, "patch_size": (8, 4)},
        {"class_token": False, "pooling": "mean", "fc_norm": True},
        {"pos_embed": "sine", "qkv_bias": False, "head_bias": False},
        {"norm_pre": True, "patch_bias": False, "representation_dim": 12},
    ],
)
def test_a_model_comes_back_as_it_was(tmp_path: Path, options: dict[str, Any]) -> None:
    model = make_model(**options)
    path = tmp_path / "new" / "folder" / "model.safetensors"  # made on the way
    minivit.save_model(model.train(), path)
    loaded = minivit.load_model(path)
    assert isinstance(loaded, VisionTransformer) and not loaded.training
    assert loaded.config == model.config
    assert loaded.preprocess == model.preprocess
    assert loaded.labels == ("ä", "b <&>", "c")
    weights, expected = loaded.state_dict(), model.state_dict()
    assert list(weights) == list(expected)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    # Not bit for bit: in the file, tensors lie where the kernels of the CPU may round otherwise.
    images = torch.randn(PICTURES)
    torch.testing.assert_close(loaded(images), model.eval()(images), atol=1e-5, rtol=0)


def test_a_model_without_labels_comes_back_without(tmp_path: Path) -> None:
    model = VisionTransformer(ViTConfig.from_name("debug_patch8_32"))
    minivit.save_model(model, tmp_path / "m.safetensors")
    assert minivit.load_model(str(tmp_path / "m.safetensors")).labels is None


def test_half_precision_on_disk_is_single_precision_in_memory(
    tmp_path: Path, file: Path, model: VisionTransformer
) -> None:
    half = tmp_path / "half.safetensors"
    minivit.save_model(model, half, dtype=torch.float16)
    assert half.stat().st_size < 0.6 * file.stat().st_size
    loaded = minivit.load_model(half)
    for name, weight in loaded.state_dict().items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, model.state_dict()[name].half().float())
    as_stored = minivit.load_model(half, dtype=None)
    assert {p.dtype for p in as_stored.parameters()} == {torch.float16}
    assert {p.dtype for p in minivit.load_model(file, dtype=torch.float64).parameters()} == {
        torch.float64
    }
    assert {p.dtype for p in model.parameters()} == {torch.float32}  # saving changed nothing


def test_a_model_can_be_saved_over_its_own_file(file: Path) -> None:
    """Its weights are read from the very file that is replaced."""
    loaded = minivit.load_model(file)
    expected = {name: tensor.clone() for name, tensor in loaded.state_dict().items()}
    minivit.save_model(loaded, file)
    again = minivit.load_model(file).state_dict()
    assert all(torch.equal(again[name], expected[name]) for name in expected)


def test_loading_does_not_touch_the_random_numbers(file: Path) -> None:
    torch.manual_seed(0)
    expected = torch.randn(3)
    torch.manual_seed(0)
    minivit.load_model(file)
    assert torch.equal(torch.randn(3), expected)


def test_shipped_weights_are_loaded_by_name_and_all_else_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path, model: VisionTransformer
) -> None:
    by_name, by_path = (minivit.load_model(which) for which in ("scenes", SHIPPED["scenes"]))
    assert by_name.config == by_path.config and by_name.labels == by_path.labels
    for ours, theirs in zip(by_name.parameters(), by_path.parameters(), strict=True):
        assert torch.equal(ours, theirs)

    monkeypatch.chdir(tmp_path)
    file.rename("scenes")
    for path in ("./scenes", Path("scenes")):
        assert minivit.load_model(path).config == model.config
    assert minivit.load_model("scenes").config == by_name.config  # also beside such a file
    with pytest.raises(FileNotFoundError) as raised:
        minivit.load_model("landscapes")
    assert str(raised.value).startswith("landscapes: no such file; ")
    assert "\n" not in str(raised.value)


# ---- mapped into memory ------------------------------------------------------------------------


def mapped(path: Path) -> list[tuple[int, int, str]]:
    """(start, end, permissions) of the parts of this process's memory that are this file."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(path)):
            addresses, permissions = line.split()[:2]
            start, end = (int(address, 16) for address in addresses.split("-"))
            found.append((start, end, permissions))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/maps is Linux's")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_weights_stay_in_the_file_until_they_are_used(
    tmp_path: Path, model: VisionTransformer, dtype: torch.dtype
) -> None:
    path = tmp_path.resolve() / "mapped.safetensors"
    minivit.save_model(model, path, dtype=dtype)
    loaded = minivit.load_model(path, dtype=None)
    places = mapped(path)
    assert places and all(permissions.endswith("p") for _, _, permissions in places)  # private
    for name, tensor in loaded.state_dict().items():
        assert any(start <= tensor.data_ptr() < end for start, end, _ in places), name


def test_training_a_loaded_model_leaves_its_file_alone(file: Path) -> None:
    before = file.read_bytes()
    loaded = minivit.load_model(file).train()
    optimizer = torch.optim.AdamW(loaded.parameters(), lr=0.1)
    images = torch.randn(PICTURES)
    start = loaded(images).detach()
    for _ in range(2):
        optimizer.zero_grad()
        loaded(images).square().sum().backward()
        optimizer.step()
    assert not torch.allclose(loaded(images), start)
    assert file.read_bytes() == before
    assert torch.equal(minivit.load_model(file)(images), start)


# ---- files that are refused --------------------------------------------------------------------


def refusal(path: Path) -> str:
    """The message, which is one line and begins with the file's name."""
    with pytest.raises(CheckpointError) as error:
        minivit.load_model(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none.safetensors: no such file"):
        minivit.load_model(tmp_path / "none.safetensors")


def test_truncated_files(file: Path, tmp_path: Path) -> None:
    data = file.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    cut = tmp_path / "cut.safetensors"
    for length in (0, 1, 7, 8, 9, header - 1, header, header + 1, len(data) // 2, len(data) - 1):
        cut.write_bytes(data[:length])
        assert "not a whole .safetensors file" in refusal(cut)
        assert "copy or download it again" in refusal(cut)


@pytest.mark.parametrize(
    "data",
    [b"PK\x03\x04" * 1000, b"\x80\x02}q" * 1000, b"{}", b"\xff" * 5000, b"\0" * 5000],
    ids=["zip", "pickle", "json", "ones", "zeros"],
)
def test_files_of_another_kind(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(data)
    assert "not a whole .safetensors file" in refusal(path)
    assert f"python -m weights_convert {path} -o" in refusal(path)


def test_a_folder(tmp_path: Path) -> None:
    assert f"python -m weights_convert {tmp_path} -o" in refusal(tmp_path)


def test_appended_bytes_are_noticed(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"more")
    assert "not a whole .safetensors file" in refusal(file)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_file_of_another_program_names_the_converter(
    tmp_path: Path, metadata: dict[str, str] | None
) -> None:
    path = tmp_path / "theirs.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(2)}, path, metadata=metadata)
    assert f"python -m weights_convert {path}" in refusal(path)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_an_unknown_version(file: Path, version: Any) -> None:
    rewrite(file, describe=lambda description: description | {"version": version})
    assert f"version {version!r}; this minivit reads version 1" in refusal(file)


def test_no_version(file: Path) -> None:
    rewrite(file, describe=lambda description: description["config"])
    assert "version None" in refusal(file)
    rewrite(file, describe=lambda description: [1, 2])
    assert "version None" in refusal(file)


def test_another_architecture(file: Path) -> None:
    rewrite(file, describe=lambda description: description | {"architecture": "Perceiver"})
    assert "'Perceiver', expected one of VisionTransformer, ResNet" in refusal(file)


def test_a_description_that_is_no_json(file: Path) -> None:
    tensors = safetensors.torch.load_file(file)
    safetensors.torch.save_file(tensors, file, metadata={"minivit": '{"version": 1,'})
    refusal(file)


@pytest.mark.parametrize("part", ["config", "preprocess", "labels"])
def test_a_missing_part_is_named(file: Path, part: str) -> None:
    rewrite(file, describe=lambda d: {key: value for key, value in d.items() if key != part})
    assert repr(part) in refusal(file)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("config", {"heads": 2}, "unknown ViT config field heads"),
        ("config", {"dim": 33}, "num_heads is 2"),
        ("config", {"patch_size": [0, 8]}, "patch_size"),
        ("config", {"patch_size": 8}, "patch_size is 8"),
        ("config", {"depth": "two"}, "depth is 'two'"),
        ("config", {"activation": "swish"}, "'swish'"),
        ("preprocess", {"mode": "stretch"}, "stretch"),
        ("preprocess", {"flip": True}, "flip"),
    ],
)
def test_a_wrong_value_is_named(
    file: Path, part: str, change: dict[str, Any], message: str
) -> None:
    rewrite(file, describe=lambda d: d | {part: d[part] | change})
    assert message in refusal(file)


@pytest.mark.parametrize("config", [None, [], "small", 3])
def test_a_config_that_is_no_table(file: Path, config: Any) -> None:
    rewrite(file, describe=lambda description: description | {"config": config})
    refusal(file)


def test_labels_of_another_number(file: Path) -> None:
    rewrite(file, describe=lambda description: description | {"labels": ["a"]})
    assert "1 labels for 3 classes" in refusal(file)


def test_missing_unexpected_and_misshapen_tensors_are_named_and_counted(file: Path) -> None:
    def spoil(tensors: dict[str, Tensor]) -> None:
        for name in ("cls_token", "head.bias", "norm.bias", "norm.weight"):
            del tensors[name]
        tensors["extra"] = torch.zeros(1)
        tensors["head.weight"] = torch.zeros(4, 32)
        tensors["pos_embed"] = torch.zeros(1, 17, 32)

    rewrite(file, tensors=spoil)
    message = refusal(file)
    assert "4 missing (cls_token, head.bias, norm.bias, …)" in message
    assert "1 unexpected (extra)" in message
    assert "2 of a wrong shape" in message
    assert "head.weight (4, 32) instead of (3, 32)" in message
    assert "pos_embed (1, 17, 32) instead of (1, 25, 32)" in message


@pytest.mark.parametrize("what", ["missing", "unexpected", "of a wrong shape"])
def test_only_what_is_wrong_is_said(file: Path, what: str) -> None:
    def spoil(tensors: dict[str, Tensor]) -> None:
        if what == "unexpected":
            tensors["extra"] = torch.zeros(1)
        else:
            weight = tensors.pop("head.weight")
            if what == "of a wrong shape":
                tensors["head.weight"] = weight.mT.contiguous()  # the same number of values

    rewrite(file, tensors=spoil)
    found = re.findall("missing|unexpected|of a wrong shape", refusal(file).split(": ", 1)[1])
    assert found == [what]


# ---- saving that fails -------------------------------------------------------------------------


def assert_survived(file: Path, before: bytes) -> None:
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]  # and nothing else is left
    minivit.load_model(file)


@pytest.mark.parametrize("error", [SafetensorError("disk full"), KeyboardInterrupt()])
def test_an_existing_file_survives_a_failed_save(
    file: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    before = file.read_bytes()

    def save_half(_tensors: Any, path: Path, **_: Any) -> None:
        Path(path).write_bytes(before[:1000])
        raise error

    monkeypatch.setattr("minivit.checkpoint.save_file", save_half)
    expected = OSError if isinstance(error, SafetensorError) else KeyboardInterrupt
    with pytest.raises(expected) as raised:
        minivit.save_model(make_model(), file)
    if expected is OSError:
        assert str(file) in str(raised.value) and "disk full" in str(raised.value)
    assert_survived(file, before)


def test_an_existing_file_survives_a_full_disk(file: Path) -> None:
    """The system itself refuses to write more than 4,096 bytes, as a full disk would."""
    resource = pytest.importorskip("resource", reason="limits on file sizes are Unix's")
    before = file.read_bytes()
    model = make_model()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="cannot be written") as raised:
            minivit.save_model(model, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(file) in str(raised.value)
    assert_survived(file, before)


def test_a_folder_that_cannot_be_written_to(file: Path) -> None:
    """Below a regular file nobody can write, not even the superuser."""
    before = file.read_bytes()
    for path in (file / "below.safetensors", file / "further" / "below.safetensors"):
        with pytest.raises(OSError, match=r"model\.safetensors"):
            minivit.save_model(make_model(), path)
    assert_survived(file, before)


# ---- files that lie ------------------------------------------------------------------------------


def changed(file: Path, part: str, **values: object) -> str:
    """The refusal of a file whose description says other things in one of its tables."""
    rewrite(file, describe=lambda whole: whole | {part: whole[part] | values})
    return refusal(file)


@pytest.mark.parametrize("depth", [3 * 10**4, 10**5, 10**9])
def test_blocks_that_the_file_has_no_tensors_for_are_not_built(
    file: Path, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minivit.vit, "EncoderBlock", None)  # nothing is built: it would fail
    assert f"a depth of {depth} blocks, the file has the tensors of 2" in changed(
        file, "config", depth=depth
    )


@pytest.mark.parametrize("name", ["encoder_depth", "decoder_depth", "depth"])
def test_the_same_of_a_captioner(tmp_path: Path, name: str) -> None:
    """A number small enough that a broken check fails, and does not hang."""
    path = tmp_path / "captioner.safetensors"
    minivit.save_model(minivit.load_model("scenes_captioner"), path)
    if name == "depth":
        with safe_open(path, framework="pt") as opened:
            backbone = json.loads(opened.metadata()["minivit"])["config"]["backbone"]
        message = changed(path, "config", backbone=backbone | {"depth": 2000})
        assert "a depth of 2000 backbone.blocks" in message
    else:
        what = name.removesuffix("_depth")
        assert f"a depth of 2000 {what}" in changed(path, "config", **{name: 2000})


@pytest.mark.parametrize("part", ["config", "preprocess"])
def test_pictures_that_nobody_has_are_refused(tmp_path: Path, part: str) -> None:
    """Also where positions are fixed, so that no tensor denies the size."""
    path = tmp_path / "sine.safetensors"
    minivit.save_model(make_model(pos_embed="sine"), path)
    assert f"{part} image_size is (1000000, 1000000)" in changed(
        path, part, image_size=[10**6, 10**6]
    )


def test_pictures_larger_than_the_positions_were_made_for_stay_allowed(file: Path) -> None:
    """A DINOv2 is made for 518 pixels and used at 224; others are used at twice their size."""
    rewrite(
        file,
        describe=lambda whole: (
            whole | {"preprocess": whole["preprocess"] | {"image_size": [128, 192]}}
        ),
    )
    assert minivit.load_model(file).preprocess.image_size == (128, 192)


@pytest.mark.parametrize(
    ("part", "values", "words"),
    [
        ("config", {"layer_norm_eps": "x"}, "layer_norm_eps is 'x', expected a number"),
        ("config", {"layer_scale": "x"}, "layer_scale is 'x', expected a number"),
        ("config", {"class_token": "no"}, "class_token is 'no', expected true or false"),
        ("config", {"qkv_bias": [1]}, "qkv_bias is (1,), expected true or false"),
        ("config", {"pos_embed_offset": None}, "pos_embed_offset is None, expected a number"),
        ("config", {"head_blocks": "1"}, "head_blocks is '1', expected a whole number"),
        ("config", {"dim": 2**62, "num_heads": 1}, "dim is 4611686018427387904, expected 2,147,4"),
        ("config", {"hidden_dim": 2**31 - 1, "dim": 2**31 - 1, "num_heads": 1}, "sizes that no"),
        ("config", {"image_size": [2**31, 8]}, "image_size is (2147483648, 8), expected"),
        ("config", {"activation": {"a": 1}}, "activation is {'a': 1}: choose from"),
    ],
)
def test_a_field_of_another_kind_is_named(
    file: Path, part: str, values: dict[str, object], words: str
) -> None:
    assert words in changed(file, part, **values)


@pytest.mark.parametrize("backbone", [5, None, [1], "resnet", {"depth": [50]}])
def test_a_backbone_that_is_none(tmp_path: Path, backbone: object) -> None:
    path = tmp_path / "captioner.safetensors"
    minivit.save_model(minivit.load_model("scenes_captioner"), path)
    message = changed(path, "config", backbone=backbone)
    assert "the table of a ResNet or a ViT" in message or "depth of a ResNet" in message


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("architecture", ["x"], "holds a ['x'], expected one of"),
        ("version", [[1]], "checkpoint version [[1]]"),
        ("config", ["dim", "depth"], "ViT config is ['dim', 'depth'], expected a table"),
        ("preprocess", ["mode"], "preprocess is ['mode'], expected a table"),
        ("labels", [1, 2, 3], "labels are [1, 2, 3], expected a list of texts"),
        ("labels", [["a"], ["b"], ["c"]], "expected a list of texts"),
        ("labels", [None] * 3, "labels are [None, None, None], expected a list of texts"),
        ("labels", "abc", "labels are 'abc', expected a list of texts"),
        ("labels", {"a": 1, "b": 2, "c": 3}, "expected a list of texts"),
    ],
)
def test_a_part_of_another_kind_is_named(file: Path, name: str, value: object, words: str) -> None:
    rewrite(file, describe=lambda whole: whole | {name: value})
    assert words in refusal(file)


@pytest.mark.parametrize("text", ["[" * 100_000 + "]" * 100_000, "1" * 5000, "{", "", "\0"])
def test_a_description_that_json_cannot_read(file: Path, text: str) -> None:
    safetensors.torch.save_file({"a": torch.ones(1)}, file, metadata={"minivit": text})
    assert "its description is no JSON" in refusal(file)


def test_a_long_value_is_shown_short(file: Path) -> None:
    assert len(changed(file, "config", activation="x" * 10**6)) < 600


@pytest.mark.parametrize("kind", [torch.int8, torch.bool, torch.int64, torch.uint8])
def test_tensors_that_are_no_weights_are_refused(file: Path, kind: torch.dtype) -> None:
    rewrite(file, tensors=lambda held: held.update({"norm.bias": held["norm.bias"].to(kind)}))
    name = str(kind).removeprefix("torch.")
    assert f"norm.bias holds {name} values, weights are float16" in refusal(file)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_no_number_is_refused_by_its_name(
    file: Path, value: float, dtype: torch.dtype
) -> None:
    def damage(held: dict[str, Tensor]) -> None:
        weight = held["blocks.1.mlp.fc1.weight"].to(dtype)
        weight[3, 4] = value
        held["blocks.1.mlp.fc1.weight"] = weight

    rewrite(file, tensors=damage)
    message = refusal(file)
    assert "blocks.1.mlp.fc1.weight holds 1 NaN or infinite of 4,096 values" in message


def test_weights_whose_sum_is_no_number_are_numbers(file: Path) -> None:
    """The sum that is looked at first overflows; the weights do not."""
    rewrite(file, tensors=lambda held: held["norm.bias"].fill_(3e38))
    assert minivit.load_model(file).norm.bias.isfinite().all()


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    assert "a pipe, not a file" in refusal(tmp_path / "pipe.safetensors")
