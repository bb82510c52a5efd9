# %% [markdown]
# # 1. Pixels to tokens
#
# A transformer reads a list of vectors. This lesson cuts a photo into patches, turns each patch
# into a vector, proves that a strided convolution is the same linear layer, looks at what that
# layer looks for in a trained model, and measures what a smaller patch costs.
#
# Time: 45 minutes to read and to solve, 15 seconds to run. You should know Python, tensors and
# their shapes, and matrix products. Letters in shapes: B batch, C channels, P side of a patch in
# pixels, N number of patches, n = N + 1 tokens with the class token, D width of a token, F width
# inside the MLP (`hidden_dim`), K number of components (exercise 1.4). The grid of patches is
# (rows, cols), a picture (height, width), always in this order.

# %% tags=["imports"]
import math
import time
from dataclasses import replace

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from einops import rearrange
from IPython.display import Markdown
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import minivit
from minivit.data.scenes.dataset import TEST_SEED, make_scene
from minivit.embeddings import PatchEmbedding
from minivit.explain import filter_components
from tutorials.checks import (
    check_components,
    check_patches,
    check_picture,
    check_side,
    check_tokens_by_matrix,
)
from tutorials.weights import real_or_shipped

plt.rcParams["figure.dpi"] = 80
torch.manual_seed(0)
real, is_real = real_or_shipped()
scenes = minivit.load_model("scenes")

# %% [markdown]
# ## Two pictures
#
# A photo, and a scene that the library draws. Each becomes a tensor (1, 3, height, width):
# resized, then minus a mean and divided by a deviation. Size, mean and deviation belong to the
# weights, so they are saved with them in `model.preprocess`. Neither picture is square, so that a
# swap of rows and columns shows.


# %%
def whole(model: minivit.VisionTransformer, rows: int) -> minivit.Preprocess:
    """The model's transform for a whole picture, whose shorter side is `rows` patches."""
    side = model.config.patch_size[0]
    return replace(
        model.preprocess,
        mode="fit_shortest",
        crop_fraction=1.0,
        image_size=(rows * side, rows * side),
        multiple_of=side,
    )


def colours(images: Tensor, model: minivit.VisionTransformer) -> Tensor:
    """Normalised images (…, 3, H, W) as colours from 0 to 1 again."""
    mean = torch.tensor(model.preprocess.mean)[:, None, None]  # (3,) -> (3, 1, 1)
    std = torch.tensor(model.preprocess.std)[:, None, None]  # (3,) -> (3, 1, 1)
    return (images * std + mean).clamp(0, 1)


photo_images = whole(real, 8)(minivit.open_image("photos/cat.jpg"))[None]  # (1, 3, H, W)
scene = make_scene(TEST_SEED, 9, image_size=(64, 96), difficulty="easy").image
scene_images = whole(scenes, 8)(scene)[None]  # (1, 3, 64, 96)
pictures = {"photo": (photo_images, real), "scene": (scene_images, scenes)}
for name, (images, model) in pictures.items():
    side = model.config.patch_size[0]
    print(f"{name}: {tuple(images.shape)}, patches of {side} x {side} pixels")

# %% [markdown]
# **Before you run the next cell:** how many patches does each picture have, how many numbers does
# one patch hold, and do all patches together hold more numbers than the picture, or fewer?
#
# ## Cut: version 1, two loops
#
# Row by row from the top left. Each patch is flattened: its red values row by row, then its green
# ones, then its blue ones.


# %%
def patches_v1(images: Tensor, side: int) -> Tensor:
    """(B, C, height, width) -> (B, N, C·P·P)."""
    rows, cols = images.shape[2] // side, images.shape[3] // side
    patches = []
    for row in range(rows):
        for col in range(cols):
            top, left = row * side, col * side
            patch = images[:, :, top : top + side, left : left + side]
            patches.append(patch.flatten(1))  # (B, C, P, P) -> (B, C·P·P)
    return torch.stack(patches, dim=1)  # N times (B, C·P·P) -> (B, N, C·P·P)


for name, (images, model) in pictures.items():
    rows, cols = model.patch_embed.grid_for(*images.shape[-2:])
    patches = patches_v1(images, model.config.patch_size[0])
    print(f"{name}: {rows} rows x {cols} cols = {rows * cols} patches, {tuple(patches.shape)}")
    assert patches.numel() == images.numel()  # no pixel is lost, and none is there twice

# %% [markdown]
# The pictures with the cuts drawn, and their first patches as the transformer gets them: one
# after the other. That one patch lies below another is not in this list. Lesson 2 is about how a
# model learns it all the same.


# %%
def mosaic(tiles: Tensor, cols: int, gap: int = 1) -> Tensor:
    """Tiles (n, 3, h, w) of values from 0 to 1 as one picture (H, W, 3), white between them."""
    tiles = torch.cat([tiles, torch.ones(-len(tiles) % cols, *tiles.shape[1:])])
    tiles = F.pad(tiles, (0, gap, 0, gap), value=1.0)  # (n, 3, h, w) -> (n, 3, h + gap, w + gap)
    joined = rearrange(tiles, "(rows cols) c h w -> (rows h) (cols w) c", cols=cols)
    return joined[:-gap, :-gap]


def show(axes: plt.Axes, pixels: Tensor, title: str) -> None:
    """A picture (H, W, 3) without ticks."""
    axes.imshow(pixels.numpy(), interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=9)


figure, axes = plt.subplots(2, 2, figsize=(8.2, 3.7), height_ratios=[6, 1], layout="constrained")
for column, (name, (images, model)) in enumerate(pictures.items()):
    side = model.config.patch_size[0]
    rows, cols = model.patch_embed.grid_for(*images.shape[-2:])
    flat = colours(images, model)
    tiles = patches_v1(flat, side)[0].view(-1, 3, side, side)  # (N, C·P·P) -> (N, C, P, P)
    show(axes[0, column], mosaic(tiles, cols, gap=2), f"{name}: {rows} rows × {cols} cols")
    show(axes[1, column], mosaic(tiles[:36], 18, gap=2), "its first 36 patches, in order")

# %% [markdown]
# ## Exercise 1.1: cut without a loop
#
# Write `cut`: the same numbers as `patches_v1`, in the same order, without a loop. It gets images
# (B, C, height, width) and the side P, and returns (B, rows·cols, C·P·P). One call of einops'
# `rearrange` is enough; `reshape` with `permute` will do too.


# %% exercise="1.1" tags=["stub"]
def cut(images: Tensor, side: int) -> Tensor:
    """(B, C, height, width) -> (B, N, C·P·P)."""
    ...


check_patches(cut)

# %% [markdown] exercise="1.1" tags=["hint"]
# <details><summary>Hint</summary>
#
# The height is rows times P: in einops' pattern an axis may be split by naming its two parts in
# brackets, the outer one first. Which of the five names (besides b) that come of it belong to N,
# which to the numbers of one patch, and in which order? einops needs to be told one of the two
# parts.
#
# </details>

# %% [markdown] exercise="1.1" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def cut(images: Tensor, side: int) -> Tensor:
#     return rearrange(
#         images, "b c (rows h) (cols w) -> b (rows cols) (c h w)", h=side, w=side
#     )  # (B, C, height, width) -> (B, N, C·P·P)
# ```
#
# </details>

# %% [markdown]
# ## Versions 2 and 3
#
# Version 2 splits the axes, moves them and joins them. Version 3 says the same in one pattern.
# The step in the middle is the one that people leave out: `reshape` never moves a number in
# memory, it only reads them in other groups.


# %%
def patches_v2(images: Tensor, side: int) -> Tensor:
    """(B, C, height, width) -> (B, N, C·P·P)."""
    batch, channels, height, width = images.shape
    rows, cols = height // side, width // side
    split = images.reshape(batch, channels, rows, side, cols, side)  # (B, C, rows, P, cols, P)
    moved = split.permute(0, 2, 4, 1, 3, 5)  # new: -> (B, rows, cols, C, P, P)
    return moved.reshape(batch, rows * cols, -1)  # -> (B, N, C·P·P)


def patches_v3(images: Tensor, side: int) -> Tensor:
    """(B, C, height, width) -> (B, N, C·P·P)."""
    pattern = "b c (rows h) (cols w) -> b (rows cols) (c h w)"  # new: the move, in names
    return rearrange(images, pattern, h=side, w=side)


def without_the_move(images: Tensor, side: int) -> Tensor:
    """A mistake: the right shape, and no patches."""
    batch, channels, height, width = images.shape
    return images.reshape(batch, height * width // side**2, channels * side**2)


for images, model in pictures.values():
    side = model.config.patch_size[0]
    expected = patches_v1(images, side)
    assert torch.equal(patches_v2(images, side), expected)
    assert torch.equal(patches_v3(images, side), expected)
    wrong = without_the_move(images, side)
    assert wrong.shape == expected.shape and not torch.equal(wrong, expected)
print("versions 1, 2 and 3: equal; without the move: the same shape, other numbers")

# %% [markdown]
# **Before you run it:** what does a "patch" show when `reshape` is called without the move? The
# next cell draws each patch, right and wrong, where its number in the list says that it belongs.

# %%
side = real.config.patch_size[0]
rows, cols = real.patch_embed.grid_for(*photo_images.shape[-2:])
flat = colours(photo_images, real)
figure, axes = plt.subplots(1, 2, figsize=(6.6, 2.5), layout="constrained")
for panel, function, title in (
    (axes[0], patches_v3, "split, move, join"),
    (axes[1], without_the_move, "joined without the move"),
):
    tiles = function(flat, side)[0].view(-1, 3, side, side)  # (N, C·P·P) -> (N, C, P, P)
    show(panel, mosaic(tiles, cols), title)

rows_of_one = 3 * side * side / flat.shape[-1]
third = without_the_move(flat, side)[0, : rows * cols // 3]
assert torch.equal(third.flatten(), flat[0, 0].flatten())  # red, from top to bottom
print(
    f"one wrong patch holds {rows_of_one:.1f} rows of pixels, from edge to edge, all of one colour "
    "channel"
)

# %% [markdown]
# The wrong patch is a strip through the whole picture, and the first third of the list is the red
# channel. Nothing raises an error, and a model trained on such strips still learns something: the
# mistake is found by looking, not by waiting.
#
# ## Exercise 1.2: put the picture together again
#
# Write `put_together`, which undoes the cut: patches (B, N, C·P·P), the grid (rows, cols) and the
# side P become images (B, C, height, width). The pattern of version 3 stands above, and yours is
# the same one turned round. What is left to find is which sizes einops must be told now: the number
# of channels is not given, it follows.


# %% exercise="1.2" tags=["stub"]
def put_together(patches: Tensor, grid_size: tuple[int, int], side: int) -> Tensor:
    """(B, N, C·P·P) -> (B, C, height, width)."""
    ...


check_picture(put_together)

# %% [markdown] exercise="1.2" tags=["hint"]
# <details><summary>Hint</summary>
#
# Read the pattern of the cut from right to left. Why does a list of 12 patches not tell by itself
# whether they were 3 × 4 or 2 × 6, and what do you have to give einops besides P because of that?
#
# </details>

# %% [markdown] exercise="1.2" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def put_together(patches: Tensor, grid_size: tuple[int, int], side: int) -> Tensor:
#     rows, cols = grid_size
#     return rearrange(
#         patches,
#         "b (rows cols) (c h w) -> b c (rows h) (cols w)",
#         rows=rows,
#         cols=cols,
#         h=side,
#         w=side,
#     )  # (B, N, C·P·P) -> (B, C, height, width)
# ```
#
# </details>

# %% [markdown]
# ## From a patch to a token
#
# A patch is multiplied by a matrix $E$ and gets a bias. That is all of the patch embedding
# (equation 1 of the paper, before positions):
#
# $$z_n = E\,x_n + b, \qquad x_n \in \mathbb{R}^{C P P},\quad E \in \mathbb{R}^{D \times C P P}.$$
#
# Published weights store $E$ as the kernel (D, C, P, P) of a convolution with stride P. At place
# $(r, q)$ such a convolution computes
#
# $$z_{d,r,q} = b_d + \sum_{c,i,j} w_{d,c,i,j}\; x_{c,\;rP+i,\;qP+j}.$$
#
# The pixels under the sum are those of patch $(r, q)$ and no others, in the order c, i, j. So row
# $d$ of $E$ is $w_d$, flattened.
#
# **Before you run it:** how often does a convolution of stride P touch each pixel? And one of
# stride P/2, with the same kernel? (The gradient of the sum of all outputs counts it when all
# weights are 1.)


# %%
def times_touched(stride: int, size: int = 8, pixels: int = 24) -> Tensor:
    """How many windows of a convolution hold each pixel, (pixels, pixels)."""
    conv = nn.Conv2d(1, 1, size, stride=stride, bias=False)
    nn.init.ones_(conv.weight)
    images = torch.zeros(1, 1, pixels, pixels, requires_grad=True)
    (count,) = torch.autograd.grad(conv(images).sum(), images)
    return count[0, 0]  # (1, 1, pixels, pixels) -> (pixels, pixels)


for stride in (8, 4):
    values = sorted({int(value) for value in times_touched(stride).flatten().tolist()})
    print(f"kernel 8 x 8, stride {stride}: a pixel is touched {values} times")
assert bool((times_touched(8) == 1).all())

# %% [markdown]
# ## Exercise 1.3: the kernel as a matrix
#
# Write `tokens_by_matrix`: images (B, C, height, width), a kernel (D, C, h, w) whose patches need
# not be square, and a bias (D,) become tokens (B, N, D), row by row from the top left. No
# convolution: cut, flatten the kernel, multiply. Your `cut` of exercise 1.1 cannot be reused, since
# it knows one side P only, and here h ≠ w.


# %% exercise="1.3" tags=["stub"]
def tokens_by_matrix(images: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """(B, C, height, width), (D, C, h, w), (D,) -> (B, N, D)."""
    ...


check_tokens_by_matrix(tokens_by_matrix)

# %% [markdown] exercise="1.3" tags=["hint"]
# <details><summary>Hint</summary>
#
# The kernel's last two axes are the height and width of a patch. `kernel.flatten(1)` is $E$, (D,
# C·h·w), in the order c, i, j; your patches must have the same order. `x @ E.T` has the shape (B,
# N, D), to which (D,) can be added.
#
# </details>

# %% [markdown] exercise="1.3" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def tokens_by_matrix(images: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
#     height, width = kernel.shape[-2:]
#     patches = rearrange(
#         images, "b c (rows h) (cols w) -> b (rows cols) (c h w)", h=height, w=width
#     )  # (B, C, height, width) -> (B, N, C·h·w)
#     matrix = kernel.flatten(1)  # (D, C, h, w) -> (D, C·h·w)
#     return patches @ matrix.T + bias  # (B, N, C·h·w) -> (B, N, D)
# ```
#
# </details>

# %% [markdown]
# ## The same layer, three times
#
# Version 1 is a linear layer on cut patches, version 2 a convolution, and the third is the
# library's `PatchEmbedding`. One set of weights is copied into all three. Outputs and gradients
# are compared.

# %%
side, dim = 14, 48
linear = nn.Linear(3 * side * side, dim)  # version 1
conv = nn.Conv2d(3, dim, side, stride=side)  # new: cuts, flattens and multiplies in one call
embed = PatchEmbedding((side, side), 3, dim)  # this is `minivit.embeddings.PatchEmbedding`
with torch.no_grad():
    conv.weight.copy_(linear.weight.view(dim, 3, side, side))  # (D, C·P·P) -> (D, C, P, P)
    conv.bias.copy_(linear.bias)
embed.proj.load_state_dict(conv.state_dict())

images = torch.randn(2, 3, 5 * side, 7 * side)
by_linear = linear(patches_v3(images, side))  # (B, C, H, W) -> (B, N, D)
by_conv = rearrange(conv(images), "b d rows cols -> b (rows cols) d")  # (B, D, rows, cols)
by_library = embed(images)  # (B, C, H, W) -> (B, N, D)
torch.testing.assert_close(by_conv, by_linear, atol=1e-5, rtol=0)
torch.testing.assert_close(by_library, by_linear, atol=1e-5, rtol=0)

(by_linear.square().sum() + by_conv.square().sum()).backward()
torch.testing.assert_close(conv.weight.grad.flatten(1), linear.weight.grad, atol=1e-3, rtol=1e-4)
print(f"tokens {tuple(by_library.shape)}: linear layer = convolution = PatchEmbedding")
print(f"largest difference {(by_conv - by_linear).abs().max():.1e}, gradients equal too")

# %% [markdown]
# The two differ in one case. **Before you run it:** the picture is 75 × 103 pixels, the patch 14.
# What does the convolution do with the pixels that are left over, and what does the library do?

# %%
odd = torch.randn(1, 3, 75, 103)
changed = odd.clone()
changed[:, :, 70:] = 100.0  # the last 5 rows of pixels
changed[:, :, :, 98:] = 100.0  # and the last 5 columns
print(f"convolution: {tuple(conv(odd).shape[-2:])} places")
assert torch.equal(conv(odd), conv(changed))  # it never looked there
print("convolution: the pixels left over may be anything, the tokens stay the same")
try:
    embed(odd)
except ValueError as error:
    print(f"PatchEmbedding: {error}")

# %% [markdown]
# ## What E looks for
#
# Row $d$ of $E$ has as many numbers as a patch, so it can be drawn as one: it is the patch for
# which number $d$ of the token is largest, among patches of the same length. D such filters are
# hard to read. Their principal components are the few patterns that the filters are mixed from
# (figure 7, left, of the ViT paper).
#
# ## Exercise 1.4: principal components of filters
#
# Write `components`: from a kernel (D, C, h, w) the first K principal components of its D
# filters, (K, C, h, w), each of length 1, strongest first, and the part of the filters' variance
# that lies along each, (K,). K is `count`. The sign of a component is free.
#
# With the filters as rows of $W$ and their mean subtracted, $W = U S V^\top$: the components are
# the rows of $V^\top$, and the variance along component $k$ is proportional to $s_k^2$.


# %% exercise="1.4" tags=["stub"]
def components(kernel: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(D, C, h, w) -> (K, C, h, w), (K,)."""
    ...


check_components(components)

# %% [markdown] exercise="1.4" tags=["hint"]
# <details><summary>Hint</summary>
#
# `torch.linalg.svd(W, full_matrices=False)` returns U, S and Vᵀ, in this order, the largest value
# of S first. The shares are parts of *all* the variance, not of that of the first K.
#
# </details>

# %% [markdown] exercise="1.4" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def components(kernel: Tensor, count: int) -> tuple[Tensor, Tensor]:
#     filters = kernel.flatten(1)  # (D, C, h, w) -> (D, C·h·w)
#     centred = filters - filters.mean(dim=0)
#     _, lengths, directions = torch.linalg.svd(centred, full_matrices=False)
#     variances = lengths.square()
#     patterns = directions[:count].reshape(count, *kernel.shape[1:])  # (K, C·h·w) -> (K, C, h, w)
#     return patterns, variances[:count] / variances.sum()
# ```
#
# </details>

# %% [markdown]
# The library has this as `minivit.explain.filter_components`, which also fixes the sign: the
# value farthest from 0 is positive. Below it is used on three models: one that has not learned
# anything, the one of the first cell, and the one of the scenes. For each model 28 filters (those
# of the greatest length) and the first 28 components, each about grey and to its own full
# contrast.
#
# **Before you run it:** the scenes' classes are colours and shapes. Which of the two do you
# expect in the filters? And are the filters of a model trained on photos coloured?

# %%
untrained = minivit.VisionTransformer(
    minivit.ViTConfig.from_name("small_patch14_224", depth=1, num_classes=0)
)
name_of_real = "DINOv2 ViT-S/14, photos" if is_real else "scenes (in place of a real model)"
models = {"not trained": untrained, name_of_real: real, "scenes": scenes}


def about_grey(filters: Tensor) -> Tensor:
    """Filters (n, 3, h, w) as colours: 0 becomes grey, the value farthest from 0 black or white."""
    return 0.5 + 0.5 * filters / filters.abs().amax(dim=(1, 2, 3), keepdim=True)


figure, axes = plt.subplots(2, 3, figsize=(8.4, 4.4), layout="constrained")
for column, (name, model) in enumerate(models.items()):
    kernel = model.patch_embed.proj.weight.detach()
    longest = kernel.flatten(1).norm(dim=1).argsort(descending=True)[:28]
    found = filter_components(model, count=28)
    show(axes[0, column], mosaic(about_grey(kernel[longest]), 7), f"{name}\n28 filters")
    title = f"28 components: {float(found.shares.sum()):.0%} of the variance"
    show(axes[1, column], mosaic(about_grey(found.components), 7), title)

# %% [markdown]
# Four numbers for what the eye sees:
#
# - **grain**: the mean squared difference of neighbours, divided by twice the variance. Noise has
#   1, a smooth pattern a number near 0.
# - **grey**: the part of the filters' squared length that is alike in red, green and blue. Noise
#   has 1/3, filters without colour have 1.
# - **flat**: the part of the filters' squared length that is one colour all over the patch. Noise
#   of P × P pixels has 1/P².
# - **for 90 %**: the number of components that hold 90 % of the filters' variance.


# %%
def grain(filters: Tensor) -> float:
    """Mean over filters (n, C, h, w) of squared differences of neighbours / (2 · variance)."""
    steps = [filters.diff(dim=axis).square().mean(dim=(1, 2, 3)) for axis in (2, 3)]  # (n,) each
    return float((sum(steps) / 2 / (2 * filters.var(dim=(1, 2, 3)))).mean())


def grey(filters: Tensor) -> float:
    """Part of the squared length of (n, 3, h, w) that is the same in all three channels."""
    return float(3 * filters.mean(dim=1).square().sum() / filters.square().sum())


def flat_part(filters: Tensor) -> float:
    """Part of the squared length of (n, 3, h, w) that is the same in all pixels."""
    pixels = filters.shape[2] * filters.shape[3]
    return float(pixels * filters.mean(dim=(2, 3)).square().sum() / filters.square().sum())


def needed(model: minivit.VisionTransformer, part: float) -> int:
    """Number of components that hold a part of the variance."""
    count = min(model.patch_embed.proj.weight.flatten(1).shape)
    shares = filter_components(model, count=count).shares
    return int((shares.cumsum(0) < part).sum()) + 1


measured = {}
table = [f"{'':34} filters  numbers  grain   grey   flat  for 90 %"]
for name, model in models.items():
    kernel = model.patch_embed.proj.weight.detach()
    measured[name] = grain(kernel), grey(kernel), flat_part(kernel), needed(model, 0.9)
    row = "{:5.2f}  {:5.2f}  {:5.3f}  {:8}".format(*measured[name])
    count, size = kernel.flatten(1).shape
    table.append(f"{name:34} {count:7}  {size:7}  {row}")
print("\n".join(table))

# %%
noise, photo_filters = measured["not trained"], measured[name_of_real]
scene_grain, scene_grey, scene_flat, scene_count = measured["scenes"]
assert noise[0] > 0.9 and abs(noise[1] - 1 / 3) < 0.05 and noise[2] < 0.01
assert scene_grain < 0.5 and scene_grey < 0.1
text = (
    f"The scenes' filters are **smooth and coloured**: only {scene_grey:.0%} of their squared "
    f"length is grey, where noise has a third, and {scene_count} components hold 90 % of the "
    "variance. They ask where in the patch one colour gives way to another. A class is a colour "
    "and a shape, and light and texture of a scene say nothing about it."
)
if is_real:
    first = grey(filter_components(real, count=28).components)
    assert photo_filters[0] > 0.5 and photo_filters[1] > 0.7 and photo_filters[2] < noise[2]
    text += (
        f" The filters that were trained on photos are **mostly grey** ({photo_filters[1]:.0%} of "
        f"their squared length, {first:.0%} of that of the first 28 components), **fine** (grain "
        f"{photo_filters[0]:.2f}), and sum to almost nothing: a patch of one colour, whichever, "
        "gets next to no answer but the bias. Single filters look like noise to the eye. The "
        "numbers say that they are not, and the components show it: grey waves and rings. What "
        "filters look like is a matter of the weights and their training, and not of vision "
        "transformers as such."
    )
else:
    text += " (After `make real` this cell compares the filters of a model of photos.)"
Markdown(text)

# %% [markdown]
# ## What a component answers
#
# A component is a question that is put to each patch: how much of this pattern is in you? The
# answers of all patches are a map (rows, cols). Here are the first three components of each
# model, and their answers for its picture.
#
# **Before you run it:** the scenes' components are coloured patterns that change within the
# patch. Do they answer most inside an object, on its border, or on plain ground?

# %%
figure, axes = plt.subplots(
    2, 7, figsize=(10, 3.3), width_ratios=[1.5, 0.5, 1.5, 0.5, 1.5, 0.5, 1.5], layout="constrained"
)
for line, (name, (images, model)) in zip(axes, pictures.items(), strict=True):
    side = model.config.patch_size[0]
    rows, cols = model.patch_embed.grid_for(*images.shape[-2:])
    show(line[0], colours(images[0], model).permute(1, 2, 0), name)  # (3, H, W) -> (H, W, 3)
    patterns = filter_components(model, count=3).components
    answers = patches_v3(images, side)[0] @ patterns.flatten(1).T  # (N, C·P·P) -> (N, 3)
    answers = rearrange(answers, "(rows cols) k -> k rows cols", rows=rows)
    for k in range(3):
        tile = about_grey(patterns[k : k + 1])[0].permute(1, 2, 0)  # (3, P, P) -> (P, P, 3)
        show(line[1 + 2 * k], tile, f"no. {k + 1}")
        limit = float(answers[k].abs().max())
        drawn = line[2 + 2 * k].imshow(answers[k], cmap="RdBu_r", vmin=-limit, vmax=limit)
        line[2 + 2 * k].set(xticks=[], yticks=[])
        line[2 + 2 * k].set_title("answer of each patch", fontsize=8)
        figure.colorbar(drawn, ax=line[2 + 2 * k], shrink=0.7).ax.tick_params(labelsize=7)

# %% [markdown]
# ## What is lost
#
# A token has D numbers, a patch C·P·P. Where D is less, E maps some different patches onto one
# token. How much of a picture survives? Let $\bar{x}$ be a patch of the picture's mean colour. Of
# all patches that have the token $z_n$, the one nearest to $\bar{x}$ comes from the
# pseudo-inverse
# $E^+$:
#
# $$\hat{x}_n = \bar{x} + E^+\,(z_n - E\,\bar{x} - b).$$
#
# **Before you run it:** the scenes' model keeps half as many numbers as a patch has. What is
# missing from the picture that is put together from its tokens: brightness, colour, edges, or
# grain? And what is left when only the strongest directions of E are used?


# %%
def from_tokens(images: Tensor, model: minivit.VisionTransformer, rank: int) -> Tensor:
    """The picture as the strongest `rank` directions of E know it, (1, 3, H, W)."""
    side = model.config.patch_size[0]
    with torch.inference_mode():
        mean = images.mean(dim=(2, 3), keepdim=True).expand_as(images)  # (1, 3, H, W)
        tokens, of_mean = model.patch_embed(images), model.patch_embed(mean)  # (1, N, D)
        matrix = model.patch_embed.proj.weight.flatten(1)  # (D, C, P, P) -> (D, C·P·P)
        left, lengths, right = torch.linalg.svd(matrix, full_matrices=False)
        inverse = right[:rank].T / lengths[:rank] @ left[:, :rank].T  # (C·P·P, D)
        patches = (tokens - of_mean) @ inverse.T  # (1, N, D) -> (1, N, C·P·P)
    rows, _ = model.patch_embed.grid_for(*images.shape[-2:])
    pattern = "b (rows cols) (c h w) -> b c (rows h) (cols w)"
    return mean + rearrange(patches, pattern, rows=rows, h=side, w=side)


figure, axes = plt.subplots(2, 2, figsize=(4.9, 3.9), layout="constrained")
for line, (name, (images, model)) in zip(axes, pictures.items(), strict=True):
    dim = model.config.dim
    size = 3 * model.config.patch_size[0] ** 2
    print(f"{name}: {dim} numbers a token, {size} numbers a patch")
    for panel, rank in zip(line, (dim, needed(model, 0.95)), strict=True):
        again = from_tokens(images, model, rank)
        lost = (again - images).square().sum()
        share = 1 - float(lost / (images - images.mean(dim=(2, 3), keepdim=True)).square().sum())
        assert 0 < share < 1
        words = "from all" if rank == dim else "from the strongest"
        title = f"{words} {rank} directions of E:\n{share:.1%} of the picture's variance"
        show(panel, colours(again[0], model).permute(1, 2, 0), title)

# %% [markdown]
# The number of strongest directions is that of the components with 95 % of the filters' variance:
# what the model weighs most. Filters that sum to zero give edges back and hardly any light,
# coloured ones give colour back. What they leave out of the picture is not all gone. It is in the
# token, in small numbers, and later layers can make it large again. A picture of filters shows
# what a model weighs, and not all that it can know.
#
# ## What a smaller patch costs
#
# A picture of height × width has $N = \text{height}\cdot\text{width} / P^2$ patches, and a class
# token comes first, so a block sees $n = N + 1$ tokens. In multiply-adds:
#
# | part | multiply-adds |
# | --- | --- |
# | patch embedding, once | $N \cdot C P^2 \cdot D$ |
# | matrices of a block: Q, K, V, output, and the MLP's two of width $F$ | $n\,(4D^2 + 2DF)$ |
# | pairs of tokens in a block: $QK^\top$ and weights times V | $2 n^2 D$ |
#
# **Before you run it:** P is halved. By what factor do N, the patch embedding, the matrices and
# the pairs grow? And which of the model's weights get other shapes?


# %%
def block_costs(tokens: int, dim: int, hidden_dim: int) -> tuple[int, int]:
    """Multiply-adds of a block: of its matrices, and of its pairs of tokens."""
    return tokens * (4 * dim**2 + 2 * dim * hidden_dim), 2 * tokens**2 * dim


def best_time(function, seconds: float = 0.25) -> float:
    """Time of the fastest of several calls: what else a machine does only makes a call slower."""
    times = []
    while sum(times) < seconds or len(times) < 3:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


DEPTH, PIXELS = 2, 128
images = torch.randn(1, 3, PIXELS, PIXELS)
costs, seconds, lengths, others = [], [], [], set()
table = [
    "                          million multiply-adds",
    "   P  tokens  parameters      E  matrices  pairs  all maps      time",
]
for side in (32, 16, 8, 4):
    config = minivit.ViTConfig.from_name(f"tiny_patch{side}_{PIXELS}", depth=DEPTH, num_classes=0)
    model = minivit.VisionTransformer(config).eval()
    tokens = math.prod(model.grid_size) + model.num_prefix_tokens
    embedding = math.prod(model.grid_size) * 3 * side**2 * config.dim
    matrices, pairs = (DEPTH * c for c in block_costs(tokens, config.dim, config.hidden_dim))
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:  # what torch itself counts
            _, attentions = model(images, return_attention=True)
        seconds.append(best_time(lambda model=model: model(images)))
    assert counter.get_total_flops() == 2 * (embedding + matrices + pairs)
    maps = sum(weights.nbytes for weights in attentions)
    assert maps == DEPTH * config.num_heads * tokens**2 * 4
    lengths.append(tokens)
    costs.append((embedding, matrices, pairs))
    parameters = sum(p.numel() for p in model.parameters())
    others.add(parameters - 3 * side**2 * config.dim - tokens * config.dim)  # not E, not positions
    million = "{:7.1f} {:9.1f} {:6.1f}".format(*(cost / 1e6 for cost in costs[-1]))
    table.append(
        f"{side:4} {tokens:7}  {parameters:10,} {million}  {maps / 1e6:5.2f} MB"
        f"  {1000 * seconds[-1]:5.1f} ms"
    )
print("\n".join(table))
(same,) = others  # one number for all four models
print(f"parameters besides E and the positions: {same:,} in each")

# %% [markdown]
# The formula is exact for the matrix products: the assertion compares it with what torch counted
# while the model ran (torch counts a multiply-add as two operations). With half the side there are
# four times the patches: E costs the same, the matrices cost four times as much, the pairs sixteen
# times, and so does the memory of all attention maps. Of the weights two get other shapes: E has a
# quarter of its numbers, the positions have a vector for each new patch. All others stay as they
# are.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9.6, 3.6), layout="constrained")
axes[0].loglog(lengths, [1000 * s for s in seconds], "o-", label="measured")
for power, style in ((1, ":"), (2, "--")):
    line = [1000 * seconds[-1] * (n / lengths[-1]) ** power for n in lengths]
    axes[0].loglog(lengths, line, style, color="0.5", label=f"as n to the power {power}")
axes[0].set(xlabel="tokens n", ylabel="milliseconds a picture", title="Time of a forward pass")
axes[0].set_xticks(lengths, [str(n) for n in lengths])
axes[0].minorticks_off()
axes[0].legend(fontsize=8)

bottom = [0.0] * len(costs)
for part, name in enumerate(("patch embedding", "matrices", "pairs of tokens")):
    shares = [100 * cost[part] / sum(cost) for cost in costs]
    axes[1].bar([str(n) for n in lengths], shares, bottom=bottom, label=name)
    bottom = [low + share for low, share in zip(bottom, shares, strict=True)]
axes[1].set(xlabel="tokens n", ylabel="part of all multiply-adds in %", ylim=(0, 100))
axes[1].set_title("Multiply-adds by part")
figure.legend(*axes[1].get_legend_handles_labels(), loc="outside right", fontsize=8)
steps = zip(lengths, lengths[1:], seconds, seconds[1:], strict=False)
powers = [math.log(late / soon) / math.log(more / less) for less, more, soon, late in steps]
print("time grows as n to the power", ", then ".join(f"{power:.1f}" for power in powers))
assert seconds[-1] > 4 * seconds[0]

# %% [markdown]
# "Attention is quadratic" is true of the pairs, and the pairs are a small part while n is small
# beside D. If matrices alone took time, the power would be 1; if pairs alone did, 2. Below 1
# lies time that does not grow with n: calls, and the patch embedding, which costs the same for
# every P.
#
# ## Exercise 1.5: where the square begins to matter
#
# A ViT-S/16 has D = 384, F = 1,536 and a class token. Find the side in pixels of the smallest
# square picture (a multiple of 16) for which a block spends more multiply-adds on pairs of tokens
# than on its matrices. Use `block_costs`, or a pencil.

# %% exercise="1.5" tags=["stub"]
smallest_side = ...

check_side(smallest_side)

# %% [markdown] exercise="1.5" tags=["hint"]
# <details><summary>Hint</summary>
#
# $2 n^2 D > n\,(4D^2 + 2DF)$ with $F = 4D$. Divide by $2nD$. The class token is one of the n
# tokens, and n − 1 is a square number.
#
# </details>

# %% [markdown] exercise="1.5" tags=["solution"]
# <details><summary>Solution</summary>
#
# $n > 2D + F = 6D = 2304 = 48^2$. A picture of 48 × 48 patches has 2,304 patches and a class
# token: 2,305 tokens, one more than 2,304.
#
# ```python
# def more_on_pairs(side: int) -> bool:
#     tokens, dim, hidden_dim = (side // 16) ** 2 + 1, 384, 1536
#     return 2 * tokens**2 * dim > tokens * (4 * dim**2 + 2 * dim * hidden_dim)
#
#
# smallest_side = next(side for side in range(16, 4096, 16) if more_on_pairs(side))
# ```
#
# It is 768 pixels. At 224 pixels the pairs are 197 / 2,304 of the matrices, 8.6 %.
#
# </details>

# %% [markdown]
# ## Questions
#
# **1.** A convolution with a kernel of 16 and a stride of 8 makes overlapping patches. Is it
# still a linear layer on patches? What happens to N at 224 pixels?
#
# <details><summary>Answer</summary>
#
# Yes: the same product, on patches that share pixels, where an inner pixel is in four of them. It
# is no longer a plain rearrangement of the picture, so the patches hold more numbers than the
# picture. There are (224 − 16) / 8 + 1 = 27 places a side, 729 patches instead of 196: 3.7 times
# as many.
#
# </details>
#
# **2.** You train from scratch, and your patches are flattened in the order (h w c) instead of (c
# h w). Does the model get worse? You load public weights, and the order is (h w c). And now?
#
# <details><summary>Answer</summary>
#
# From scratch nothing changes: a linear layer learns the same rows with their numbers in another
# order, and the starting weights are equally likely in any order. With loaded weights every row
# of E is applied to shuffled pixels. The shapes agree, no error is raised, and the tokens are
# wrong.
#
# </details>
#
# **3.** A patch of 16 × 16 has 768 numbers, and a ViT-B has D = 768. A patch of 4 × 4 has 48. Why
# does nobody shrink D to 48 with it?
#
# <details><summary>Answer</summary>
#
# A token has to carry more than its own pixels: from the first block on it collects what other
# patches told it, and its position is added before that. D is the width of what a model can say
# about a place, and not a copy of the pixels there.
#
# </details>

# %% [markdown]
# ## What people get wrong
#
# - **Reshape without the move.** Calling `view` or `reshape` on (B, C, height, width) to get (B,
#   N, C·P·P), or unfolding both axes and then flattening while channels still come first. Shapes
#   fit, training runs, and each "patch" mixes places that are far apart. Implementations on
#   GitHub had it, and the tests of an exercise let it pass. Test with a picture whose numbers
#   tell where they come from, as check 1.1 does.
# - **Two orders in one program.** Cutting by (h w c) and joining by (c h w) gives pictures with
#   scrambled grain. A linear layer hides it in training; whoever loads another's weights, or
#   draws what was joined, sees it.
# - **Taking the convolution for a local feature extractor.** Kernel and stride are equal, so
#   windows do not overlap: no token knows its neighbour's pixels before the first attention.
# - **Pictures that do not divide.** A convolution drops what is left over without a word: the
#   last pixels have no influence, as measured above. Some repositories refuse such sizes, some
#   resize, some drop; read which, before you compare numbers.
# - **Reading the number in "ViT-B/8" as a size of the model.** It is the side of a patch. Smaller
#   is finer and more costly, and the blocks have the same weights (only E and the positions differ,
#   see the table above): memory that was enough for /16 is not for /8, as maps grow sixteen times.
# - **Expecting edge detectors.** Pictures of filters in papers are those of one set of weights,
#   often as principal components. A grainy picture is no proof of a broken model, and a smooth
#   one none of a good one: compare with an untrained model, in numbers.
#
# ## Sources
#
# - Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words: Transformers for Image Recognition at
#   Scale", arXiv:2010.11929 (equation 1, figure 7)
# - Oquab et al. 2023, "DINOv2: Learning Robust Visual Features without Supervision",
#   arXiv:2304.07193
# - Xiao et al. 2021, "Early Convolutions Help Transformers See Better", arXiv:2106.14881 (what
#   overlapping, stacked convolutions in place of E do to training)
# - Beyer et al. 2023, "FlexiViT: One Model for All Patch Sizes", arXiv:2212.08013 (E resized for
#   another P by the pseudo-inverse)
# - Nguyen et al. 2024, "An Image is Worth More Than 16x16 Patches: Exploring Transformers on
#   Individual Pixels", arXiv:2406.09415 (P = 1)
# - Rogozhnikov 2022, "Einops: Clear and Reliable Tensor Manipulations with Einstein-like
#   Notation", ICLR 2022
