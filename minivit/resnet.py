"""ResNet-50 and ResNet-101: from pixels to a grid of features.

He et al. 2015, "Deep Residual Learning for Image Recognition" (arXiv:1512.03385)::

    y = relu(F(x) + x)              F = three convolutions: 1×1 to C, 3×3, 1×1 to 4·C channels

A stem and four stages of such blocks; every stage but the first halves the grid. Carion et al.
2020, "End-to-End Object Detection with Transformers" (DETR, arXiv:2005.12872) put a transformer
behind it and made two changes, both here: batch norms are frozen, so that batches of few pictures
do not disturb their statistics; and "DC5" dilates the last stage instead of halving its grid.

As in torchvision, the halving is done by the 3×3 convolution of a stage's first block ("ResNet
v1.5"; the paper gives it to the 1×1 before). All names are torchvision's, so that its weights and
those of DETR and its descendants load as they are. There is no classification layer.

Next: `minivit/decoder.py`, words that look at the grid.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minivit.config import RESNET_STAGES, ResNetConfig
from minivit.fields import warn_renamed
from minivit.preprocess import Preprocess


class FrozenBatchNorm(nn.Module):
    """Batch norm that only uses its numbers and never changes them.

    ::

        y = x · scale + shift      scale = weight / √(running_var + 1e-5)
                                   shift = bias - running_mean · scale

    All four are buffers: no optimiser sees them, and training and evaluation are the same.

    Args:
        channels: C.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, rows, cols), each channel scaled and shifted."""
        # In this order it is DETR's result to the last bit. Torch's batch norm is no faster, and
        # would keep x for the backward pass.
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        shift = self.bias - self.running_mean * scale
        return (x * scale[:, None, None]).add_(shift[:, None, None])


class Bottleneck(nn.Module):
    """A residual block: 1×1, 3×3 and 1×1 convolution around a shortcut (arXiv:1512.03385, fig. 5).

    Args:
        in_channels: Channels of the input.
        channels: C, width of the two inner convolutions; the output has 4·C.
        stride: Step of the 3×3 convolution.
        dilation: Distance between the pixels that the 3×3 convolution reads.
        downsample: Whether the shortcut is a 1×1 convolution, because input and output differ.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        downsample: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = FrozenBatchNorm(channels)
        self.conv2 = nn.Conv2d(
            channels, channels, 3, stride=stride, padding=dilation, dilation=dilation, bias=False
        )
        self.bn2 = FrozenBatchNorm(channels)
        self.conv3 = nn.Conv2d(channels, 4 * channels, 1, bias=False)
        self.bn3 = FrozenBatchNorm(4 * channels)
        self.downsample: nn.Module | None = None
        if downsample:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, 4 * channels, 1, stride=stride, bias=False),
                FrozenBatchNorm(4 * channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, rows, cols) -> (B, 4·C, rows / stride, cols / stride)."""
        inner = F.relu(self.bn1(self.conv1(x)), inplace=True)
        inner = F.relu(self.bn2(self.conv2(inner)), inplace=True)
        inner = self.bn3(self.conv3(inner))
        inner += x if self.downsample is None else self.downsample(x)
        return F.relu(inner, inplace=True)


class ResNet(nn.Module):
    """Pictures in, a grid of 2,048 features a cell out.

    A new one is stable, but meant to be given trained weights: its norms never learn.

    Args:
        config: What to build.
        preprocess: How a photo becomes an input; by default torchvision's evaluation.

    Attributes:
        stride: Pixels from one cell to the next, 32 or with a dilated last stage 16.
        num_channels: 2,048.
    """

    def __init__(self, config: ResNetConfig, *, preprocess: Preprocess | None = None) -> None:
        super().__init__()
        self.config = config
        self.preprocess = preprocess or Preprocess(
            image_size=(224, 224),
            mode="crop",
            crop_fraction=0.875,
            filter="bilinear",
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        )
        self.stride = 16 if config.dilate_last_stage else 32
        self.num_channels = 2048
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = FrozenBatchNorm(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        one, two, three, four = RESNET_STAGES[config.depth]
        self.layer1 = _stage(64, 64, one, stride=1)
        self.layer2 = _stage(256, 128, two, stride=2)
        self.layer3 = _stage(512, 256, three, stride=2)
        self.layer4 = _stage(1024, 512, four, stride=2, dilate=config.dilate_last_stage)
        if not self.conv1.weight.is_meta:  # no numbers to fill in
            self.initialize()

    @torch.no_grad()
    def initialize(self) -> None:
        """Starting weights that keep the size of the features from block to block.

        Convolutions: normal by fan-in (He et al. 2015, arXiv:1502.01852). Norms: the identity; the
        last of a block 1/√blocks, in the place of the statistics that a running norm would use.
        """
        num_blocks = sum(isinstance(module, Bottleneck) for module in self.modules())
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, Bottleneck):
                module.bn3.weight.fill_(num_blocks**-0.5)

    def grid_for(self, height: int, width: int) -> tuple[int, int]:
        """(rows, cols) for a picture of this many pixels; the last cell may be a part of one."""
        return -(-height // self.stride), -(-width // self.stride)

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Old name of `grid_for`, for one more release."""
        warn_renamed("ResNet.grid_size", "grid_for")
        return self.grid_for(height, width)

    def forward(self, images: Tensor) -> Tensor:
        """Features of pictures.

        Args:
            images: (B, 3, height, width) of any size.

        Returns:
            (B, 2048, rows, cols), see `grid_for`; none is negative.
        """
        if len(images) > 1:
            # The channels of a pixel side by side, which all layers keep: on a CPU convolutions
            # need not put them there and back, and 8 pictures take 1.2 times less. One picture
            # gains little, and keeps the order of sums in which it agrees best with CATR.
            images = images.contiguous(memory_format=torch.channels_last)
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)  # (B, 64, height/2, width/2)
        x = self.layer1(self.maxpool(x))  # (B, 256, height/4, width/4)
        x = self.layer2(x)  # (B, 512, height/8, width/8)
        x = self.layer3(x)  # (B, 1024, height/16, width/16)
        return self.layer4(x)  # (B, 2048, rows, cols)


def _stage(
    in_channels: int, channels: int, num_blocks: int, *, stride: int, dilate: bool = False
) -> nn.Sequential:
    """The first block changes the shape; `dilate` widens the others instead of its stride.

    Even then the first block is not dilated: its input still is of the undilated grid.
    """
    dilation = stride if dilate else 1
    first = Bottleneck(in_channels, channels, stride=1 if dilate else stride, downsample=True)
    others = (Bottleneck(4 * channels, channels, dilation=dilation) for _ in range(num_blocks - 1))
    return nn.Sequential(first, *others)


def shrink_mask(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """A mask of pixels as a mask of cells: each cell takes the pixel at its top left.

    The nearest-neighbour interpolation of DETR and CATR. Their masks say True for padding,
    minivit's for picture; as every cell copies one pixel, that makes no difference here.

    Args:
        mask: (B, height, width) boolean, True = picture.
        grid: (rows, cols), see `ResNet.grid_for`.

    Returns:
        (B, rows, cols) boolean.
    """
    return F.interpolate(mask[None].float(), size=grid)[0] > 0  # (B, height, width) -> as grid
