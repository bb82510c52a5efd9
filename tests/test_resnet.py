"""The ResNet against CATR's stored features, against torchvision live, and against itself."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from minivit.config import ResNetConfig
from minivit.preprocess import Preprocess
from minivit.resnet import Bottleneck, FrozenBatchNorm, ResNet, shrink_mask
from tests.references.catr_inputs import PICTURES, SEED, catr_weights, picture, sample
from tests.references.seeded import fingerprint, seeded

REFERENCE = Path(__file__).parent / "references" / "catr.safetensors"
BODY = "backbone.0.body."  # where CATR has its ResNet
CATR_PREPROCESS = Preprocess(
    image_size=(299, 299),
    mode="fit_longest",
    filter="bicubic",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
SIZES = [(299, 224), (224, 299), (97, 131)]


def make_model(depth: int, *, dilate: bool = False, prefix: str = "") -> ResNet:
    """In eval mode, with weights that leave no norm at the identity."""
    with torch.device("meta"):
        model = ResNet(ResNetConfig(depth=depth, dilate_last_stage=dilate)).eval()
    shapes = {prefix + name: tensor.shape for name, tensor in model.state_dict().items()}
    weights = catr_weights(shapes, SEED)
    weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    model.load_state_dict(weights, assign=True)
    return model


@contextmanager
def stages(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """What each stage made of the last input."""
    found: dict[str, Tensor] = {}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: found.__setitem__(name, output)
        )
        for name in ("layer1", "layer2", "layer3", "layer4")
    ]
    yield found
    for handle in handles:
        handle.remove()


def assert_features_close(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Equal to within `tolerance` of the largest feature."""
    assert found.shape == expected.shape
    atol = tolerance * expected.abs().max().item()
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


@pytest.fixture(scope="module")
def reference() -> dict[str, Tensor]:
    return load_file(REFERENCE)


@pytest.fixture(scope="module")
def small() -> ResNet:
    return make_model(50)


def test_a_block_adds_three_convolutions_to_its_input() -> None:
    """y = relu(F(x) + x): 1x1 to fewer channels, 3x3, 1x1 back."""
    block = Bottleneck(64, 16)
    x = torch.randn(2, 64, 6, 9)
    inner = F.relu(block.bn1(block.conv1(x)))  # 64 -> 16 channels
    inner = F.relu(block.bn2(block.conv2(inner)))
    inner = block.bn3(block.conv3(inner))  # 16 -> 64
    torch.testing.assert_close(block(x), F.relu(inner + x))


# ---- stored outputs ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def catr_body() -> ResNet:
    return make_model(101, dilate=True, prefix=BODY)


def test_the_reference_was_made_from_these_weights_and_pictures(catr_body: ResNet) -> None:
    with safe_open(REFERENCE, framework="pt") as opened:
        metadata = opened.metadata()
    shapes = json.loads(metadata["shapes"])
    pixels = {name: torch.from_numpy(np.array(picture(name))) for name in PICTURES}
    assert metadata["seed"] == str(SEED)
    assert metadata["weights"] == fingerprint(catr_weights(shapes, SEED))
    assert metadata["pictures"] == fingerprint(pixels)
    ours = {BODY + name: list(tensor.shape) for name, tensor in catr_body.state_dict().items()}
    assert ours == {name: shape for name, shape in shapes.items() if name.startswith(BODY)}


@pytest.mark.parametrize("name", PICTURES)
@torch.no_grad()
def test_every_stage_gives_what_catr_gives(
    name: str, catr_body: ResNet, reference: dict[str, Tensor]
) -> None:
    image = CATR_PREPROCESS(picture(name))
    torch.testing.assert_close(sample(image), reference[f"{name}.image"], atol=1e-6, rtol=0)
    with stages(catr_body) as found:
        output = catr_body(image[None])
    assert output is found["layer4"]
    for stage, features in found.items():
        assert_features_close(sample(features[0]), reference[f"{name}.{stage}"], 1e-5)


@torch.no_grad()
def test_padded_pictures_give_what_catr_gives(
    catr_body: ResNet, reference: dict[str, Tensor]
) -> None:
    images, mask = torch.zeros(2, 3, 299, 299), torch.zeros(2, 299, 299, dtype=torch.bool)
    for index, name in enumerate(PICTURES):
        image = CATR_PREPROCESS(picture(name))
        images[index, :, : image.shape[1], : image.shape[2]] = image
        mask[index, : image.shape[1], : image.shape[2]] = True
    features = catr_body(images)
    cells = shrink_mask(mask, catr_body.grid_for(299, 299))
    for index, name in enumerate(PICTURES):
        assert_features_close(sample(features[index]), reference[f"padded.{name}.layer4"], 1e-5)
        assert torch.equal(cells[index], reference[f"padded.{name}.ignored"] == 0)


# ---- layout and shapes -------------------------------------------------------------------------


# What torchvision documents for the whole network, less its classifier of 1,000 classes, less what
# the norms would learn (2 of their 4 numbers a channel).
@pytest.mark.parametrize(
    ("depth", "documented", "norm_channels"),
    [(50, 25_557_032, 26_560), (101, 44_549_160, 52_672)],
)
@pytest.mark.parametrize("dilate", [False, True])
def test_parameter_counts(depth: int, documented: int, norm_channels: int, dilate: bool) -> None:
    with torch.device("meta"):
        model = ResNet(ResNetConfig(depth=depth, dilate_last_stage=dilate))
    classifier = 2048 * 1000 + 1000
    found = sum(parameter.numel() for parameter in model.parameters())
    assert found == documented - classifier - 2 * norm_channels
    assert sum(buffer.numel() for buffer in model.buffers()) == 4 * norm_channels


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dilate", [False, True])
@torch.no_grad()
def test_shapes_of_odd_sizes(small: ResNet, size: tuple[int, int], dilate: bool) -> None:
    model = small if not dilate else make_model(50, dilate=True)
    cells = {(299, 224): (10, 7), (224, 299): (7, 10), (97, 131): (4, 5)}
    if dilate:
        cells = {(299, 224): (19, 14), (224, 299): (14, 19), (97, 131): (7, 9)}
    assert model.grid_for(*size) == cells[size]
    assert model(torch.randn(2, 3, *size)).shape == (2, model.num_channels, *cells[size])


@settings(max_examples=20)
@given(st.integers(1, 400), st.integers(1, 400), st.booleans())
def test_the_grid_is_that_of_the_features(height: int, width: int, dilate: bool) -> None:
    with torch.device("meta"):
        model = ResNet(ResNetConfig(depth=50, dilate_last_stage=dilate))
        features = model(torch.empty(1, 3, height, width))
    assert features.is_meta
    assert features.shape == (1, 2048, *model.grid_for(height, width))


def test_the_grid_may_still_be_asked_for_by_its_old_name(small: ResNet) -> None:
    with pytest.warns(DeprecationWarning, match=r"ResNet\.grid_size is called grid_for now"):
        assert small.grid_size(299, 224) == (10, 7)


def test_another_depth_is_refused() -> None:
    with pytest.raises(ValueError, match=r"depth of a ResNet is 34: choose from \[50, 101\]"):
        ResNetConfig(depth=34)


# ---- dilation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_every_other_dilated_cell_is_a_cell_of_the_coarse_grid(
    small: ResNet, size: tuple[int, int]
) -> None:
    """The last stage looks at the same pixels with dilation as with stride, from more places."""
    dilated = ResNet(ResNetConfig(depth=50, dilate_last_stage=True)).eval()
    dilated.load_state_dict(small.state_dict())
    images = torch.randn(1, 3, *size)
    fine, coarse = dilated(images), small(images)
    assert (small.stride, dilated.stride) == (32, 16)
    assert fine.shape[2] > 1.5 * coarse.shape[2] and fine.shape[3] > 1.5 * coarse.shape[3]
    assert_features_close(fine[:, :, ::2, ::2], coarse, 1e-5)
    assert (fine[:, :, 1::2, ::2] - coarse[:, :, : fine.shape[2] // 2]).abs().max() > 0.1


# ---- frozen norms ------------------------------------------------------------------------------


def test_a_frozen_norm_is_batch_norm_in_evaluation() -> None:
    norm = FrozenBatchNorm(6)
    norm.weight, norm.bias, norm.running_mean = seeded("three", (3, 6), 0)
    norm.running_var = seeded("variance", (6,), 0) ** 2  # some of them small
    x = seeded("x", (2, 6, 3, 4), 0).requires_grad_()
    before = x.detach().clone()
    found, expected = (
        norm(x),
        F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias),
    )
    torch.testing.assert_close(found, expected)
    assert torch.equal(x.detach(), before)
    direction = torch.randn_like(found)
    ours, theirs = (torch.autograd.grad(y, x, direction)[0] for y in (found, expected))
    torch.testing.assert_close(ours, theirs)


def test_training_changes_the_convolutions_and_no_norm(small: ResNet) -> None:
    model = copy.deepcopy(small)
    assert not [name for name, _ in model.named_parameters() if "bn" in name or "ple.1" in name]
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        evaluated = model.eval()(images)
        assert torch.equal(model.train()(images), evaluated)
    model(images).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    torch.optim.SGD(model.parameters(), lr=1e-3).step()
    for name, tensor in small.state_dict().items():
        is_norm = "bn" in name or "downsample.1" in name
        assert torch.equal(model.state_dict()[name], tensor) == is_norm


@pytest.mark.parametrize("depth", [50, 101])
@torch.no_grad()
def test_a_new_one_keeps_the_size_of_its_features(depth: int) -> None:
    torch.manual_seed(0)
    model = ResNet(ResNetConfig(depth=depth))
    with stages(model) as found:
        model(torch.randn(1, 3, 96, 64))
    assert all(0.2 < features.square().mean().sqrt() < 20 for features in found.values())


# ---- masks -------------------------------------------------------------------------------------


@given(st.integers(1, 299), st.integers(1, 299), st.sampled_from([16, 32]))
def test_a_cell_is_picture_where_its_top_left_pixel_is(rows: int, cols: int, stride: int) -> None:
    """A corner of `rows` x `cols` pixels is picture; 299 x 299 pixels are 19 or 10 cells a side."""
    mask = torch.zeros(1, 299, 299, dtype=torch.bool)
    mask[:, :rows, :cols] = True
    side = -(-299 // stride)
    places = [int(cell * 299 / side) for cell in range(side)]
    expected = mask[:, places][:, :, places]
    assert torch.equal(shrink_mask(mask, (side, side)), expected)


def test_masks_keep_height_and_width_apart() -> None:
    mask = torch.ones(2, 60, 90, dtype=torch.bool)
    mask[1, :, 45:] = False
    cells = shrink_mask(mask, (4, 6))
    assert cells[0].all() and cells[1].tolist() == [[True] * 3 + [False] * 3] * 4


# ---- live --------------------------------------------------------------------------------------


@pytest.mark.parity
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("dilate", [False, True])
@pytest.mark.parametrize("depth", [50, 101])
@torch.no_grad()
def test_equal_to_torchvision(depth: int, dilate: bool, frozen: bool) -> None:
    torchvision = pytest.importorskip("torchvision")
    theirs = getattr(torchvision.models, f"resnet{depth}")(
        replace_stride_with_dilation=[False, False, dilate],
        norm_layer=torchvision.ops.misc.FrozenBatchNorm2d if frozen else None,
    ).eval()
    weights = catr_weights({name: t.shape for name, t in theirs.state_dict().items()}, depth)
    theirs.load_state_dict(weights)
    ours = ResNet(ResNetConfig(depth=depth, dilate_last_stage=dilate))
    dropped = ("fc.weight", "fc.bias", "num_batches_tracked")
    ours.load_state_dict({k: v for k, v in weights.items() if not k.endswith(dropped)})
    for size in SIZES:
        images = seeded("images", (1, 3, *size), depth)
        with stages(theirs) as found:
            theirs(images)
        assert_features_close(ours(images), found["layer4"])


@pytest.mark.parity
@torch.no_grad()
def test_stored_features_are_torchvisions(reference: dict[str, Tensor]) -> None:
    torchvision = pytest.importorskip("torchvision")
    theirs = torchvision.models.resnet101(
        replace_stride_with_dilation=[False, False, True],
        norm_layer=torchvision.ops.misc.FrozenBatchNorm2d,
    ).eval()
    theirs.load_state_dict(make_model(101, prefix=BODY).state_dict(), strict=False)  # no fc
    for name in PICTURES:
        with stages(theirs) as found:
            theirs(CATR_PREPROCESS(picture(name))[None])
        for stage, features in found.items():
            assert_features_close(sample(features[0]), reference[f"{name}.{stage}"], 1e-5)
