"""From pixels to tokens, and where each token came from.

Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words" (arXiv:2010.11929), equation 1::

    z₀ = [x_class; x¹E; x²E; …; xᴺE] + E_pos

A picture (3, height, width) becomes rows × cols patches; each is flattened and multiplied by E.
E_pos is learned, and resized where a picture has another grid, or a table of sines.

Next: `minivit/attention.py`, how tokens look at each other.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from minivit.fields import warn_renamed


class PatchEmbedding(nn.Module):
    """Cuts pictures into patches and maps each to a token: the E of equation 1.

    Checkpoints store E as the kernel of a convolution whose stride is its size. Such a convolution
    touches every pixel once, so it is a linear layer on flattened patches, and written as one here.

    Args:
        patch_size: (height, width) of a patch in pixels.
        in_channels: Channels of the picture.
        dim: D, width of a token.
        bias: Whether E has a bias.
    """

    def __init__(
        self, patch_size: tuple[int, int], in_channels: int, dim: int, *, bias: bool = True
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, dim, patch_size, stride=patch_size, bias=bias)

    def grid_for(self, height: int, width: int) -> tuple[int, int]:
        """(rows, cols) of the patches of a picture of this many pixels.

        Raises:
            ValueError: A side is not a whole number of patches.
        """
        high, wide = self.patch_size
        # In whole numbers: a float would tie a graph of torch.compile to this one size.
        if height < high or width < wide or height % high or width % wide:
            nearest = max(1, round(height / high)) * high, max(1, round(width / wide)) * wide
            raise ValueError(
                f"a picture of {height}x{width} pixels (height x width) does not divide into "
                f"patches of {high}x{wide}: resize it, for example to {nearest[0]}x{nearest[1]}"
            )
        return height // high, width // wide

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Old name of `grid_for`, for one more release."""
        warn_renamed("PatchEmbedding.grid_size", "grid_for")
        return self.grid_for(height, width)

    def forward(self, images: Tensor) -> Tensor:
        """Tokens of the patches, row by row from the top left.

        Args:
            images: (B, C, height, width).

        Returns:
            (B, rows * cols, D).

        Raises:
            ValueError: A side is not a whole number of patches.
        """
        self.grid_for(*images.shape[-2:])
        height, width = self.patch_size
        patches = rearrange(
            images, "b c (rows h) (cols w) -> b (rows cols) (c h w)", h=height, w=width
        )  # (B, C, height, width) -> (B, N, C·h·w)
        kernel = rearrange(
            self.proj.weight, "dim c h w -> dim (c h w)"
        )  # (D, C, h, w) -> (D, C·h·w)
        return F.linear(patches, kernel, self.proj.bias)  # (B, N, C·h·w) -> (B, N, D)


def resize_position_embedding(
    embedding: Tensor,
    old_grid: tuple[int, int],
    new_grid: tuple[int, int],
    *,
    antialias: bool = True,
    offset: float = 0.0,
) -> Tensor:
    """Position embeddings for another grid, by bicubic interpolation of the old grid's.

    Rows before the patches (class token and the like) are kept as they are. With `antialias` it is
    what timm does at another resolution; without it and with an offset of 0.1, DINO and DINOv2.

    Args:
        embedding: (1, P + rows * cols, D) with any number P of prefix rows.
        old_grid: (rows, cols) of `embedding`.
        new_grid: (rows, cols) wanted.
        antialias: Whether to low-pass when the grid shrinks.
        offset: Added to the number of new rows and cols when the step between samples is computed;
            the published code of DINO and DINOv2 uses 0.1 (not for DINOv2 with registers, which
            has `antialias`), everybody else 0.

    Returns:
        (1, P + new rows * new cols, D).

    Raises:
        ValueError: Fewer embeddings than `old_grid` has cells.
    """
    num_prefix = embedding.shape[1] - old_grid[0] * old_grid[1]
    if num_prefix < 0:
        raise ValueError(
            f"{embedding.shape[1]} position embeddings cannot be a grid of "
            f"{old_grid[0]} rows x {old_grid[1]} cols"
        )
    if old_grid == new_grid:
        return embedding
    prefix, patches = embedding[:, :num_prefix], embedding[:, num_prefix:]
    patches = rearrange(patches, "1 (rows cols) dim -> 1 dim rows cols", rows=old_grid[0]).float()
    if offset:
        scale = tuple((new + offset) / old for new, old in zip(new_grid, old_grid, strict=True))
        patches = F.interpolate(patches, scale_factor=scale, mode="bicubic", antialias=antialias)
    else:
        patches = F.interpolate(patches, size=new_grid, mode="bicubic", antialias=antialias)
    patches = rearrange(patches, "1 dim rows cols -> 1 (rows cols) dim").to(embedding.dtype)
    return torch.cat([prefix, patches], dim=1)  # (1, P + rows·cols, D)


def sine_position_embedding(
    rows: int, cols: int, dim: int, *, temperature: float = 10000.0
) -> Tensor:
    """Fixed 2-D sine embeddings: a quarter of the channels each for sin x, cos x, sin y, cos y.

    Wavelengths run geometrically from 2π to 2π·temperature cells, x being the column and y the
    row. Beyer et al. 2022, "Better plain ViT baselines for ImageNet-1k" (arXiv:2205.01580), as in
    big_vision's `posemb_sincos_2d`.

    Args:
        rows: Rows of the patch grid.
        cols: Columns of the patch grid.
        dim: D, a multiple of 4, at least 8.
        temperature: Ratio of the longest wavelength to the shortest.

    Returns:
        (rows * cols, D) float32.

    Raises:
        ValueError: `dim` is not a multiple of 4 or less than 8.
    """
    if dim % 4 or dim < 8:
        raise ValueError(
            f"2-D sine embeddings need a width that is a multiple of 4, from 8 on: {dim}"
        )
    quarter = dim // 4
    omega = torch.exp(-math.log(temperature) * torch.arange(quarter) / (quarter - 1))  # (D/4,)
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    x = x.flatten()[:, None] * omega  # (N, D/4)
    y = y.flatten()[:, None] * omega  # (N, D/4)
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1)  # (N, D)


def masked_sine_position_embedding(
    mask: Tensor, dim: int, *, temperature: float = 10000.0
) -> Tensor:
    """Fixed 2-D sine embeddings of the cells of pictures that may be padded.

    Rows and columns are counted from 1 over real cells and scaled so that the last one is 2π: the
    middle of a picture has the same embedding whatever its size. The first half of the channels is
    for rows, the second for columns, sine and cosine in turns. Carion et al. 2020, "End-to-End
    Object Detection with Transformers" (arXiv:2005.12872), as DETR and CATR compute it.

    Args:
        mask: (B, rows, cols) boolean, True = a real cell.
        dim: D, a multiple of 4.
        temperature: Ratio of the longest wavelength to the shortest.

    Returns:
        (B, rows, cols, D) float32.

    Raises:
        ValueError: `dim` is not a multiple of 4.
    """
    if dim % 4:
        raise ValueError(f"2-D sine embeddings need a width that is a multiple of 4: {dim}")
    half = torch.arange(dim // 2, dtype=torch.float32, device=mask.device)
    wavelength = temperature ** (2 * (half // 2) / (dim // 2))  # (D/2,), each twice
    parts = []
    for axis in (1, 2):  # rows, columns
        count = mask.cumsum(axis, dtype=torch.float32)  # (B, rows, cols)
        last = count.narrow(axis, -1, 1)  # (B, 1, cols) or (B, rows, 1)
        turned = count / (last + 1e-6) * 2 * math.pi
        angle = turned[..., None] / wavelength  # (B, rows, cols) -> (B, rows, cols, D/2)
        pairs = torch.stack([angle[..., 0::2].sin(), angle[..., 1::2].cos()], dim=-1)
        parts.append(pairs.flatten(-2))  # (B, rows, cols, D/4, 2) -> (B, rows, cols, D/2)
    return torch.cat(parts, dim=-1)  # (B, rows, cols, D)
