# %% [markdown]
# # 6. Reading attention maps
#
# An attention map is a row of numbers laid over a picture. This lesson makes one by hand, proves
# which pixels each of its cells covers, and then asks what the map leaves out: which token looked,
# which head, which block, for which class, and how much went to no patch at all. Whether a map is
# *true* of the model is the subject of lesson 7.
#
# Time: 50 minutes to read with the exercises, 20 seconds to run. Know before: lesson 3 (what a row
# of attention is) and lesson 4 (what a block is).

# %% tags=["imports"]
import math
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from einops import rearrange
from IPython.display import Markdown, display
from matplotlib_inline.backend_inline import set_matplotlib_formats
from PIL import Image, ImageDraw
from torch import Tensor

import minivit
import tutorials
from minivit.data.scenes.dataset import CLASS_NAMES, make_scene
from minivit.explain import METHODS, class_attention, patch_map, query_attention
from minivit.explain.pointing import covered, pointing_game
from minivit.viz.panels import cell_box, outline, overlay, region_pixels, show_pixels
from tutorials.checks import (
    check_cell_box,
    check_choose_head,
    check_relevance_step,
    check_rollout,
    check_token_map,
)
from tutorials.weights import real_or_shipped

plt.rcParams["figure.dpi"] = 80
set_matplotlib_formats("jpeg", pil_kwargs={"quality": 75})  # photos are large as PNG
FOLDER = Path(tutorials.__file__).parent

# %% [markdown]
# ## Two pictures, and what is on them
#
# The real model is shown a cat and a cup of coffee, the shipped one two scenes. All four are 3:2
# (the cat is one pixel wider) on purpose: on a square picture, rows and columns can be confused
# without a trace. The white line is the object. On the photos it was drawn by hand: a few corners
# on the edge of the cat, and of the cup without its saucer. A scene knows the pixels of its
# objects.
#
# The model sees the whole picture: its shorter side gets 224 pixels (96 for the shipped model), and
# the longer one is rounded to a whole number of patches.

# %%
model, is_real = real_or_shipped()
model.requires_grad_(False)  # the lesson asks for gradients of attention, never of weights
patch = model.patch_embed.patch_size[0]
side = min(model.preprocess.image_size)
whole = replace(
    model.preprocess,
    mode="fit_shortest",
    image_size=(side, side),
    crop_fraction=1.0,
    multiple_of=patch,
)


@dataclass
class Picture:
    """A picture from disk or a scene, and where its object is."""

    name: str
    photo: Image.Image
    mask: Tensor  # (height, width), True on the object

    @property
    def images(self) -> Tensor:
        return whole(self.photo)[None]  # (1, 3, height, width)

    @property
    def box(self) -> tuple[float, float, float, float]:
        return whole.crop_box(*self.photo.size)

    @property
    def cells(self) -> Tensor:
        """What part of each cell is object, (rows, cols)."""
        return covered(self.mask[None], model.patch_embed.grid_for(*self.images.shape[-2:]))[0]


def by_hand(name: str, corners: list[tuple[int, int]]) -> Picture:
    photo = minivit.open_image(FOLDER / "photos" / f"{name}.jpg")
    mask = Image.new("1", photo.size)
    ImageDraw.Draw(mask).polygon(corners, fill=1)
    return Picture(name, photo, torch.from_numpy(np.array(mask)))


def scene(index: int) -> Picture:
    drawn = make_scene(61, index, image_size=(96, 144))
    name = f"{drawn.objects[0].colour} {drawn.objects[0].shape}"
    return Picture(name, drawn.image, torch.from_numpy(drawn.objects[0].mask))


# fmt: off
CAT = [(38, 0), (402, 0), (360, 68), (366, 118), (345, 185), (318, 222), (345, 300), (0, 300),
       (0, 125), (20, 110), (36, 60)]
CUP = [(173, 105), (185, 60), (230, 28), (290, 18), (350, 30), (395, 70), (408, 115), (400, 170),
       (375, 225), (345, 265), (300, 283), (262, 280), (240, 305), (205, 305), (196, 280),
       (215, 240), (200, 220), (180, 165)]
# fmt: on
if is_real:
    first, second = by_hand("cat", CAT), by_hand("coffee", CUP)
else:
    first, second = scene(1), scene(2)


def draw(panels, columns: int, width: float = 3.0, frame=None) -> None:
    """Panels (title, picture, map or None): the map over the grey photo, the object's outline."""
    rows, photo = math.ceil(len(panels) / columns), panels[0][1].photo
    height = width * photo.height / photo.width + 0.45
    _, axes = plt.subplots(
        rows, columns, figsize=(columns * width, rows * height), squeeze=False, layout="constrained"
    )
    for place in axes.flat:
        place.set_axis_off()
    for place, (title, picture, values) in zip(axes.flat, panels, strict=False):
        place.set_axis_on()
        pixels = region_pixels(picture.photo, picture.box, grey=values is not None)
        show_pixels(place, pixels[::2, ::2], picture.box)
        if values is not None:
            signed = float(values.min()) < 0
            overlay(place, values, picture.box, scale="signed" if signed else "from zero")
            if frame is not None:
                outline(place, cell_box(picture.box, tuple(values.shape), frame))
        down, across = (np.arange(length) + 0.5 for length in picture.mask.shape)
        place.contour(across, down, picture.mask, levels=[0.5], colors="white", linewidths=1)
        place.set_title(title, fontsize=9)
    plt.show()


draw([(f"{p.name}: {p.photo.size[0]} × {p.photo.size[1]}", p, None) for p in (first, second)], 2)
for picture in (first, second):
    print(
        f"{picture.name}: the model sees {tuple(picture.images.shape)}, a grid of "
        f"{tuple(picture.cells.shape)} (rows, cols); the object is {picture.cells.mean():.0%} of it"
    )

# %% [markdown]
# ## From a row to a map
#
# `return_attention=True` gives the weights of all blocks. A row says who looks, a column what is
# looked at: row 0 is that of the class token. The patches stand behind the prefix tokens, one row
# of the grid after the other:
#
# $$\text{token} = \text{prefix tokens} + \text{row} \cdot \text{cols} + \text{col}$$
#
# Before you run it: how long is a row, and what is its sum? What part of it is *not* on the map?

# %%
with torch.no_grad():
    tokens, attentions = model.encode(first.images, return_attention=True)
rows, cols = attentions.grid_size
num_prefix = attentions.num_prefix_tokens
row = attentions[-1][:, :, 0]  # (B, H, N, N) -> (B, H, N): the class token looks
print(f"{len(attentions)} blocks; the last one's weights are {tuple(attentions[-1].shape)}")
print(
    f"a row has {row.shape[-1]} = {num_prefix} + {rows} · {cols} numbers, sum {row[0, 0].sum():.3f}"
)
for head, weights in enumerate(row[0]):
    print(f"head {head}: {weights[:num_prefix].sum():.1%} go to the class token itself")
assert torch.allclose(row.sum(-1), torch.ones(row.shape[:2]), atol=1e-5)

# %% [markdown]
# ## Exercise 6.1: make a map of a row
# Cut off the prefix and lay the rest out as the grid: (B, H, N) -> (B, H, rows, cols). The numbers
# stay what they are. It has to work for a model with registers too, where `num_prefix` is above 1.


# %% exercise="6.1" tags=["stub"]
def token_map(row: Tensor, num_prefix: int, grid: tuple[int, int]) -> Tensor:
    """A row of weights as a map: (B, H, N) -> (B, H, rows, cols)."""
    ...


check_token_map(token_map)

# %% [markdown] exercise="6.1" tags=["hint"]
# <details><summary>Hint</summary>
#
# `row[..., num_prefix:]` is (B, H, rows · cols). `rearrange` needs one of the two sides named, and
# a pattern in which rows stand before cols.
#
# </details>

# %% [markdown] exercise="6.1" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def token_map(row: Tensor, num_prefix: int, grid: tuple[int, int]) -> Tensor:
#     patches = row[..., num_prefix:]  # (B, H, N) -> (B, H, rows·cols)
#     return rearrange(patches, "b h (rows cols) -> b h rows cols", rows=grid[0])
# ```
#
# </details>

# %% [markdown]
# This is `minivit.explain.patch_map`, which takes the grid and the prefix from what the model
# returned. Below is one way; try first. The cell draws the right map and two wrong ones, which
# raise no error: in one the prefix was left in, in the other the grid was filled down the columns
# first. Before you run it: how much of the map will a shift by one cell spoil?

# %%
line = row.mean(dim=1)  # (B, H, N) -> (B, N): mean over heads
right = rearrange(line[..., num_prefix:], "b (rows cols) -> b rows cols", rows=rows)  # version 1
late = rearrange(line[..., : rows * cols], "b (rows cols) -> b rows cols", rows=rows)
turned = rearrange(line[..., num_prefix:], "b (cols rows) -> b rows cols", rows=rows)

assert torch.equal(right, patch_map(line, attentions))  # version 2: the library
assert torch.equal(right, class_attention(attentions))  # the class token's, mean over heads
assert torch.equal(late[0].flatten()[1:], right[0].flatten()[:-1])  # every patch one cell late


def mass(values: Tensor, picture: Picture) -> float:
    """What part of a map (rows, cols) lies on the object."""
    return float(pointing_game(values / values.sum(), picture.cells, rule="half").mass)


maps = {"right": right, "prefix kept: one cell late": late, "rows and cols mixed up": turned}
draw([(f"{n}: {mass(m[0], first):.0%} on it", first, m[0]) for n, m in maps.items()], 3)

# %% [markdown]
# Colours run from 0, dark, to the panel's own maximum, yellow: compare cells of one panel.
#
# "On it" is the **mass**: the part of the map's own sum that lies on the object, each cell counted
# by its share of object. A uniform map has the object's share of the picture, printed above. The
# cell at the top left of the second map is what the class token gave to itself. Where that is much,
# it takes the colours from all others, and the map looks empty.
#
# ## Which pixels is a cell?
#
# A convolution of stride P cuts the patches, so cell (r, c) covers the pixels r·P to (r+1)·P down
# and c·P to (c+1)·P to the right, of *the tensor that the model saw*. That can be proven without
# trust in any formula: change the pixels there and see which tokens change.
#
# Before you run it: how many of the embedded tokens change when one such square is painted over?

# %%
cell = (2, cols - 3)
painted = first.images.clone()
painted[..., cell[0] * patch : (cell[0] + 1) * patch, cell[1] * patch : (cell[1] + 1) * patch] = 0
with torch.no_grad():
    changed = (model.embed(painted) != model.embed(first.images)).any(dim=-1)[0]  # (N,)
numbers = changed.nonzero()[:, 0].tolist()
expected = num_prefix + cell[0] * cols + cell[1]
print(f"tokens that change: {numbers}; {num_prefix} + {cell[0]} · {cols} + {cell[1]} = {expected}")
assert numbers == [expected]

# %% [markdown]
# The photo was resized and perhaps cropped before. `preprocess.crop_box` gives the region that the
# model saw in the photo's own pixels, and the grid divides that region evenly.
#
# ## Exercise 6.2: find the pixels of a cell
# Given are the box (left, top, right, bottom) of what the model saw, in the photo's pixels, the
# grid (rows, cols) and a cell (row, col). Return the cell's own (left, top, right, bottom).


# %% exercise="6.2" tags=["stub"]
def box_of_cell(box, grid, cell):
    """(left, top, right, bottom) of a cell in the photo's pixels."""
    ...


check_cell_box(box_of_cell)

# %% [markdown] exercise="6.2" tags=["hint"]
# <details><summary>Hint</summary>
#
# A cell is (right - left) / cols wide and (bottom - top) / rows high. Its left edge is `left` plus
# as many widths as there are cells to its left.
#
# </details>

# %% [markdown] exercise="6.2" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def box_of_cell(box, grid, cell):
#     left, top, right, bottom = box
#     (rows, cols), (row, col) = grid, cell
#     wide, high = (right - left) / cols, (bottom - top) / rows
#     x, y = left + col * wide, top + row * high
#     return x, y, x + wide, y + high
# ```
#
# </details>

# %% [markdown]
# This is `minivit.viz.panels.cell_box`. A common fault is to crop the centre square for the model,
# as most preprocessing does, and to stretch its map over the whole photo. The map below was made of
# the centre square and is drawn twice: over the whole photo, and where it belongs.

# %%
square = replace(whole, mode="crop", image_size=(side, side), multiple_of=1)
with torch.no_grad():
    _, seen = model.encode(square(second.photo)[None], return_attention=[-1])
centre = class_attention(seen)[0]  # (rows, cols), rows = cols
region = square.crop_box(*second.photo.size)
figure, axes = plt.subplots(1, 2, figsize=(8, 3.1), layout="constrained")
for place, title, box in zip(
    axes,
    ("wrong: stretched over the whole photo", "right: over the square that the model saw"),
    (second.box, region),
    strict=True,
):
    show_pixels(place, region_pixels(second.photo, second.box, grey=True)[::2, ::2], second.box)
    overlay(place, centre, box)
    outline(place, cell_box(box, tuple(centre.shape), divmod(int(centre.argmax()), len(centre))))
    down, across = (np.arange(length) + 0.5 for length in second.mask.shape)
    place.contour(across, down, second.mask, levels=[0.5], colors="white", linewidths=1)
    place.set_title(f"{title}\nframed: the strongest cell", fontsize=9)
plt.show()

left, top, right_edge, bottom = (round(edge) for edge in region)
inside = covered(second.mask[None, top:bottom, left:right_edge], tuple(centre.shape))
stretched = covered(second.mask[None], tuple(centre.shape))
share = centre[None] / centre.sum()
print(f"mass on the object: {float((share * inside).sum()):.0%} where the map belongs")
print(f"and {float((share * stretched).sum()):.0%} if it is read as a map of the whole photo")

# %% [markdown]
# ## Heads: what the mean hides
#
# The map above was a mean over heads. Heads have projections of their own and look at different
# things. Before you run it: will the heads of one block agree on what the object is?

# %%
heads = query_attention(attentions, token=0)[0]  # (H, rows, cols), last block
figure = minivit.viz.attention_figure(
    first.photo,
    first.box,
    heads,
    num_tokens=num_prefix + rows * cols,
    heading=f"Last block, the class token's row: {first.name}",
    photo_title="the photo",
)
figure.set_dpi(72)
display(figure)


# %%
def last_heads(picture: Picture) -> Tensor:
    """What the class token gives to the patches in each head of the last block, (H, rows, cols)."""
    with torch.no_grad():
        rows_asked = minivit.AttentionRows(blocks=[-1], queries=[0])
        _, found = model.encode(picture.images, return_attention=rows_asked)
    return query_attention(found, token=0)[0]


of_last = [last_heads(first), last_heads(second)]
table = []
for picture, maps in zip((first, second), of_last, strict=True):
    table.append([mass(m, picture) for m in (*maps, maps.mean(0))])
    sums = maps.sum(dim=(1, 2))  # (H,)
    of_heads = torch.tensor(table[-1][:-1])
    # The mean's mass is the heads' mean mass, each weighted by what it gives to patches at all.
    assert math.isclose(table[-1][-1], float((sums * of_heads).sum() / sums.sum()), abs_tol=1e-5)

names = [*(f"head {h}" for h in range(len(heads))), "mean"]
print(" " * 24 + "".join(f"{name:>8}" for name in names))
for picture, masses in zip((first, second), table, strict=True):
    print(f"{picture.name:<18} mass " + "".join(f"{value:8.0%}" for value in masses))
    print(f"{'':<12} uniform map {picture.cells.mean():7.0%}")
average = torch.tensor(table)[:, :-1].mean(dim=0)  # (H,)
finder, other = int(average.argmax()), int(average.argmin())
print(f"most on the objects: head {finder}; least: head {other}")
if is_real:
    assert (finder, other) == (2, 3)

# %% [markdown]
# The line in the loop is an equality, not a tendency: the mean's mass is the weighted mean of the
# heads' masses. A head that looks at everything *but* the object is no error to be averaged away.
# It pulls the mean down, and nobody who sees the mean alone can tell two such heads from two that
# both look half at the object.

# %%
panels = []
for picture, maps in zip((first, second), of_last, strict=True):
    for name, values in (
        (f"head {finder}", maps[finder]),
        (f"head {other}", maps[other]),
        ("mean of all", maps.mean(0)),
    ):
        panels.append((f"{name}: {mass(values, picture):.0%} on the object", picture, values))
draw(panels, 3)
if not is_real:
    display(Markdown("*The shipped model's three heads agree; the real model's six do not.*"))
both = torch.corrcoef(of_last[0][[finder, other]].flatten(1))  # (2, rows·cols) -> (2, 2)
print(f"correlation of the two heads' maps of the first picture: {both[0, 1]:.2f}")

# %% [markdown]
# Two pictures are an anecdote. `python -m benchmarks.real_maps` measured the same heads of the real
# model on 151 photos of cats and dogs with published masks; the photos are not in the repository,
# the table is. Pointing: is the strongest cell on the animal? In parentheses there, and as bars
# here: 95 % intervals.

# %%
report = (FOLDER.parent / "benchmarks" / "real_maps.md").read_text(encoding="utf-8")
measured = {}  # name: ((pointing, low, high), (mass, low, high)), in percent
for text in report.splitlines():
    parts = [part.strip() for part in text.strip("|").split("|")]
    if len(parts) == 3 and parts[1][:1].isdigit():
        values = [part.replace("(", "").replace(")", "").replace("to", "") for part in parts[1:]]
        measured[parts[0]] = tuple(tuple(float(v) for v in value.split()) for value in values)

last = "class token, last block, "
bars = {
    **{f"head {h}": measured[f"{last}head {h}"] for h in range(6)},
    "mean of heads": measured[f"{last}mean of heads"],
    "centre blob": measured["a blob in the centre"],
    "rollout": measured["rollout, ½ residual, mean of heads"],
    "uniform map": measured["chance: any cell; a uniform map"],
}
figure, axes = plt.subplots(figsize=(9, 3.2), layout="constrained")
for shift, number, name in ((-0.2, 0, "pointing"), (0.2, 1, "mass on the animal")):
    values = np.array([pair[number] for pair in bars.values()])  # (bars, 3)
    spread = np.abs(values[:, 1:] - values[:, :1]).T
    axes.bar(np.arange(len(bars)) + shift, values[:, 0], 0.38, yerr=spread, label=name, capsize=2)
axes.set_xticks(range(len(bars)), list(bars), rotation=20, ha="right")
axes.set(ylabel="%", ylim=(0, 105), title="DINOv2 ViT-S/14 of make real, last block, 151 photos")
axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
plt.show()
assert (
    measured[f"{last}head 2"][1][0] > measured[f"{last}mean of heads"][1][2]
)  # above its interval
assert measured[f"{last}head 3"][1][2] < measured["chance: any cell; a uniform map"][1][1]
print(
    f"head 2 points at the animal in {measured[last + 'head 2'][0][0]} %, with "
    f"{measured[last + 'head 2'][1][0]} % of its mass; head 3 in {measured[last + 'head 3'][0][0]} "
    f"%, with {measured[last + 'head 3'][1][0]} %; the mean with "
    f"{measured[last + 'mean of heads'][1][0]} %"
)
print(
    f"rollout points at it in {bars['rollout'][0][0]} %, a cell drawn at random in "
    f"{bars['uniform map'][0][0]} %"
)
assert (bars["rollout"][0][0], bars["uniform map"][0][0]) == (53.0, 43.9)  # the text says so

# %% [markdown]
# The head that avoids the animal is far *below* a uniform map, and its interval too. To avoid the
# animal it has to know where it is. A map below chance is a finding, not noise.
#
# ## Exercise 6.3: choose a head on some scenes, and see it work on others
# Which head of which block puts most of the class token's map on the object? How you find out is
# open, and the answer is measured: your function is given the shipped model, 16 scenes
# (B, 3, height, width) and what part of each cell is the main object (B, rows, cols). It returns
# `(block, head)`, both counted from 0. The check scores that head on 16 *other* scenes. It counts
# as right if it is within one point of the best head on those. Then the check asks for a head of a
# second model, which is the same but for one head.


# %% exercise="6.3" tags=["stub"]
def choose_head(model: minivit.VisionTransformer, images: Tensor, cells: Tensor):
    """(block, head) of the head with the most mass on the objects."""
    ...


check_choose_head(choose_head)

# %% [markdown] exercise="6.3" tags=["hint"]
# <details><summary>Hint</summary>
#
# `_, attentions = model(images, return_attention=True)` under `torch.no_grad()`.
# `minivit.explain.query_attention(attentions, token=0, block=b)` is (B, H, rows, cols). Mass is a
# part: divide what lies on the object by the map's own sum, then take the mean over pictures.
#
# </details>

# %% [markdown] exercise="6.3" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def choose_head(model, images, cells):
#     with torch.no_grad():
#         _, attentions = model(images, return_attention=True)
#     masses = []
#     for block in range(len(attentions)):
#         maps = minivit.explain.query_attention(attentions, token=0, block=block)
#         on_object = (maps * cells[:, None]).sum(dim=(-2, -1))  # (B, H, rows, cols) -> (B, H)
#         masses.append((on_object / maps.sum(dim=(-2, -1))).mean(dim=0))  # (B, H) -> (H,)
#     table = torch.stack(masses)  # (blocks, H)
#     return divmod(int(table.argmax()), table.shape[1])
# ```
#
# In this model the answer is a head of block 1, and not one of the last block. A choice made on the
# pictures that it is scored on would look better than it is; this one was scored on others.
#
# </details>

# %% [markdown]
# ## Blocks: when does the class token find the object?
#
# The class token starts as the same vector in every picture. In the first block it can only ask for
# what it was trained to ask for. Before you run it: does the map on the object grow from block to
# block, or does it jump?

# %%
panels, masses = [], []
to_itself = torch.stack([a[0, :, 0, 0].mean() for a in attentions])  # (blocks,)
for block in range(len(attentions)):
    values = class_attention(attentions, block=block)[0]  # (rows, cols)
    masses.append(mass(values, first))
    title = f"block {block}: {masses[-1]:.0%} on it, {to_itself[block]:.0%} to itself"
    panels.append((title, first, values))
draw(panels, 4, width=2.7)
print(f"a uniform map: {first.cells.mean():.0%}; each panel has its own scale, 0 to its maximum")
print(f"most on itself: block {int(to_itself.argmax())}, {float(to_itself.max()):.0%}")
print("mass on the animal, 151 photos, the real model's blocks 0 to 10 and the last, in %:")
by_block = [measured[f"class token, block {b}, mean of heads"][1][0] for b in range(11)]
by_block.append(measured[f"{last}mean of heads"][1][0])
print("  ".join(f"{value:.0f}" for value in by_block))
uniform = measured["chance: any cell; a uniform map"][1][0]
assert min(by_block[9:]) - uniform > 20 > 12 > max(by_block[:9]) - uniform

# %% [markdown]
# In the real model it jumps: up to block 8 the mass stays within 12 points of a uniform map's, from
# block 9 on it is more than 20 above. A pretty map of an early block, with bright eyes, may still
# have no more on the animal than a uniform one; the number says so and the colours do not.
#
# The second number of a title is easily forgotten: what the class token gives to *itself* is on no
# map. Where that is half of the row, the map shows the other half, stretched to full colour.
#
# ## Rollout: attention through all blocks
#
# Before the last block a patch token has taken from the others in every block: it stands for more
# than its patch. Rollout (Abnar & Zuidema) follows attention through all blocks, with Ā the mean
# over heads, and I for the residual connection, which keeps every token as it is:
#
# $$\tilde A_l = \tfrac12(\bar A_l + I), \qquad R = \tilde A_L \, \tilde A_{L-1} \cdots \tilde A_1$$
#
# ## Exercise 6.4: follow attention through all blocks
# Write R. Each factor has rows of sum 1, so R has them too. A new block stands on the *left*: what
# it mixes are tokens that the earlier blocks have mixed.


# %% exercise="6.4" tags=["stub"]
def roll(attentions: list[Tensor]) -> Tensor:
    """Attention rollout: a list of (B, H, N, N), first block first -> (B, N, N)."""
    ...


check_rollout(roll)

# %% [markdown] exercise="6.4" tags=["hint"]
# <details><summary>Hint</summary>
#
# `torch.eye(N)` is I, and can be added to a batch of matrices. Start with the first block's Ã, and
# in a loop over the others put `mixed @ flow` in the place of `flow`.
#
# </details>

# %% [markdown] exercise="6.4" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def roll(attentions: list[Tensor]) -> Tensor:
#     flow = torch.eye(attentions[0].shape[-1])  # nothing is mixed before the first block
#     for attention in attentions:
#         mean = attention.mean(dim=1)  # (B, H, N, N) -> (B, N, N)
#         flow = (mean + torch.eye(mean.shape[-1])) / 2 @ flow
#     return flow
# ```
#
# </details>

# %% [markdown]
# Below is one way, in versions; try first. The last map has the fault that makes the nicest
# picture: the blocks multiplied from the last to the first. Before you run it: which of the maps do
# you expect to lie on the object?

# %%
means = [a.mean(dim=1) for a in attentions]  # each (B, H, N, N) -> (B, N, N)
identity = torch.eye(means[0].shape[-1])

product = means[0]  # version 1: attention alone
for mean in means[1:]:
    product = mean @ product

flow = (means[0] + identity) / 2
for mean in means[1:]:
    flow = (mean + identity) / 2 @ flow  # new: + I, halved

assert torch.allclose(
    flow, minivit.explain.rollout(attentions), atol=1e-6
)  # version 3: the library
assert torch.allclose(flow.sum(-1), torch.ones(flow.shape[:2]), atol=1e-4)

backwards = (means[-1] + identity) / 2
for mean in means[-2::-1]:
    backwards = (mean + identity) / 2 @ backwards

rolled = {
    "version 1, no residual": product,
    "version 2 = minivit.explain.rollout": flow,
    "wrong: the blocks backwards": backwards,
}
panels = []
for name, values in rolled.items():
    values = patch_map(values[:, 0], attentions)[0]  # (B, N) -> (rows, cols), the class token's
    panels.append((f"{name}: {mass(values, first):.0%} on it", first, values))
draw(panels, 3)

# %% [markdown]
# Why does the right map say so little? Look at R itself. A product of matrices whose rows sum to 1
# is an average of averages, and averages of the same things grow alike. Half the summed difference
# of two rows is 0 for equal rows and 1 for rows that share nothing.
#
# Before you run it: how far is the class token's row of R from the mean row of *all* tokens?


# %%
def spread_of_rows(weights: Tensor) -> float:
    """Mean distance of the rows (N, N) from their mean: 0 equal, towards 1 nothing in common."""
    return float((weights - weights.mean(dim=0)).abs().sum(dim=-1).mean() / 2)


spreads, flow = [], identity
for mean in means:
    flow = (mean[0] + identity) / 2 @ flow  # (N, N)
    spreads.append(spread_of_rows(flow))
alone = [spread_of_rows((mean[0] + identity) / 2) for mean in means]
figure, axes = plt.subplots(figsize=(7, 2.8), layout="constrained")
axes.plot(alone, "o--", label="the block's own Ã")
axes.plot(spreads, "o-", label="product up to the block")
axes.set(xlabel="block", ylabel="distance of a row\nfrom the mean row", ylim=(0, 1))
axes.set_title("Rollout: rows of different tokens become the same", fontsize=10)
axes.legend(fontsize=8)
plt.show()
patches = flow[num_prefix:, num_prefix:]  # who looks: patches; at what: patches
same = (patches.argmax(dim=1) == patches.sum(dim=0).argmax()).float().mean()
distance = float((flow[0] - flow.mean(dim=0)).abs().sum() / 2)
print(f"the class token's row of R differs from the mean row of all tokens by {distance:.3f}")
print(f"{same:.0%} of the patches have the same strongest patch")
assert spreads[-1] < 0.9 * spreads[0] and spreads == sorted(spreads, reverse=True)
if is_real:
    assert distance < 0.02 and same == 1

# %% [markdown]
# In the real model, of 12 blocks, the class token's row of R is nearly the row of any token. It is
# a statement about the patches that are looked at most, and hardly one about the class token. On
# the 151 photos this rollout points at the animal little more often than a cell drawn at random
# would (53.0 and 43.9 %, the last two pairs of bars above). The shipped model has 4 blocks, and
# there much is left of the difference. In both, rollout leaves out values, projections and MLPs.
#
# ## Relevance: which looks raise one class
#
# None of these maps knows a class: ask for "cat" or for "cup", and they are the same. Chefer, Gur
# and Wolf multiply each attention weight with the gradient of the class's logit y by it, and keep
# what raises the logit. From R = I on, block after block:
#
# $$\bar A = \frac1H\sum_h \left(\frac{\partial y}{\partial A_h} \odot A_h\right)^{\!+}, \qquad
# R \leftarrow R + \bar A R$$
#
# ## Exercise 6.5: take relevance through one block
# Write the step: R, the block's weights A and the gradient ∂y/∂A go in, the new R comes out. Mind
# the order of product, positive part and mean, and do not normalise. Where the gradient is small,
# the rows of Ā are small, and the block adds little to R; normalised rows would hide that.


# %% exercise="6.5" tags=["stub"]
def relevance_step(relevance: Tensor, attention: Tensor, gradient: Tensor) -> Tensor:
    """R + Ā R: (B, N, N), (B, H, N, N), (B, H, N, N) -> (B, N, N)."""
    ...


check_relevance_step(relevance_step)

# %% [markdown] exercise="6.5" tags=["hint"]
# <details><summary>Hint</summary>
#
# Four operations in this order: the product entry by entry, `.clamp(min=0)`, the mean over heads
# (dimension 1), a matrix product with R. Then R is added.
#
# </details>

# %% [markdown] exercise="6.5" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def relevance_step(relevance: Tensor, attention: Tensor, gradient: Tensor) -> Tensor:
#     raising = (attention * gradient).clamp(min=0).mean(dim=1)  # (B, H, N, N) -> (B, N, N)
#     return relevance + raising @ relevance
# ```
#
# </details>

# %% [markdown]
# Relevance needs a class, and the real model has no head. So this part uses the shipped model of
# scenes in either case: it was trained on 48 classes, shape and colour of the largest object, and a
# scene with two objects has a second class to ask for. Below is one way to write the step; try
# first. Version 1 looks at the last block alone, version 2 at all of them.

# %%
classifier = minivit.load_model("scenes")
drawn = [make_scene(61, index, image_size=(96, 144)) for index in range(60)]
drawn = [each for each in drawn if len(each.objects) == 2]
assert len(drawn) == 16
names = [[f"{o.colour} {o.shape}" for o in each.objects] for each in drawn]
pixels = torch.stack([torch.from_numpy(np.array(each.image)) for each in drawn])
scenes = classifier.preprocess.normalize(rearrange(pixels, "b h w c -> b c h w"))


def relevance_by_hand(images: Tensor, target: int) -> tuple[Tensor, Tensor]:
    """The class token's rows: of the last block alone (B, N), and of all blocks (B, N)."""
    logits, found = classifier(images, return_attention=True)
    gradients = torch.autograd.grad(logits[:, target].sum(), list(found))
    total = torch.eye(found[0].shape[-1])
    for weights, gradient in zip(found, gradients, strict=True):
        raising = (weights * gradient).clamp(min=0).mean(dim=1)  # (B, H, N, N) -> (B, N, N)
        total = total + raising @ total  # new in version 2: through all blocks
    return patch_map(raising[:, 0], found).detach(), patch_map(total[:, 0], found).detach()


one = scenes[:1]
for name in names[0]:
    target = CLASS_NAMES.index(name)
    last_block, all_blocks = relevance_by_hand(one, target)
    assert torch.allclose(
        last_block, METHODS["attention_gradient"](classifier, one, target), atol=1e-6
    )
    assert torch.allclose(all_blocks, METHODS["relevance"](classifier, one, target), atol=1e-5)
print("by hand = METHODS['attention_gradient'], METHODS['relevance']")

# %% [markdown]
# Attention and rollout below are the same for both classes; relevance is asked twice, for the class
# of the larger object and for that of the smaller. Of 16 scenes with two objects the figure shows
# the one in which the smaller object gains most; the table is of all 16. Before you run it: will
# the second map leave the large object alone?

# %%
shares = [
    covered(torch.stack([torch.from_numpy(each.objects[k].mask) for each in drawn]), (12, 18))
    for k in (0, 1)
]  # each (B, rows, cols)
targets = [[CLASS_NAMES.index(pair[k]) for pair in names] for k in (0, 1)]
asked = {
    "attention, last block": METHODS["attention"](classifier, scenes),
    "rollout": METHODS["rollout"](classifier, scenes),
    "relevance, larger": METHODS["relevance"](classifier, scenes, targets[0]),
    "relevance, smaller": METHODS["relevance"](classifier, scenes, targets[1]),
}  # each (B, rows, cols)
asked = {name: m / m.sum(dim=(1, 2), keepdim=True) for name, m in asked.items()}  # of sum 1
difference = asked["relevance, smaller"] - asked["relevance, larger"]
chosen = int((difference * shares[1]).sum(dim=(1, 2)).argmax())  # where the smaller one gains most
masks = [torch.from_numpy(each.mask) for each in drawn[chosen].objects]
pair = Picture(" and ".join(names[chosen]), drawn[chosen].image, masks[0] | masks[1])
panels = [(pair.name, pair, None), *((n, pair, m[chosen]) for n, m in asked.items())]
draw([*panels, ("smaller - larger: red above 0", pair, difference[chosen])], 3, width=2.8)

on_objects = {}
print(f"{len(drawn)} scenes, part of the map on   larger object   smaller object")
for name, values in asked.items():
    on_objects[name] = [float((values * share).sum(dim=(1, 2)).mean()) for share in shares]
    print(f"{name:<30}{on_objects[name][0]:12.1%}{on_objects[name][1]:17.1%}")
print(f"{'uniform map':<30}{shares[0].mean():12.1%}{shares[1].mean():17.1%}")
assert on_objects["relevance, smaller"][1] > 2 * on_objects["relevance, larger"][1]
assert on_objects["relevance, smaller"][0] > on_objects["relevance, smaller"][1]

# %% [markdown]
# Relevance follows the class: asked for the smaller object it puts several times as much there. It
# does not change sides: most of the map still lies on the larger object, because relevance is
# attention times something, and where attention is small the product is small. Read two relevance
# maps *against each other*; one alone looks like attention.
#
# ## Tokens that draw attention: outliers and registers
#
# In large models that were trained long, Darcet et al. found a few patch tokens, mostly of plain
# background, that are many times as long as the others. They hold what is known of the whole
# picture and draw attention: bright dots where there is nothing to see.
# `minivit.explain.outlier_tokens` calls a patch an outlier above three times the median length.
#
# Before you run it: does this model have them? And is there a patch that all tokens look at?

# %%
from minivit.explain.describe.walk import tokens_by_block

with torch.no_grad():
    lengths = [t[0, num_prefix:].norm(dim=-1) for t in tokens_by_block(model, first.images)]
found = minivit.explain.outlier_tokens(model, first.images)
assert torch.allclose(found.norms[0].flatten(), lengths[-1], rtol=1e-3)
longest = [float(each.max() / each.median()) for each in lengths[1:]]  # after each block
looked_at = [mean[0, :, num_prefix:].mean(dim=0) for mean in means]  # (N, patches) -> (patches,)
times_even = [float(each.max()) * means[0].shape[-1] for each in looked_at]

figure, axes = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
axes[0].plot(longest, "o-")
axes[0].axhline(3, color="0.4", linestyle="--")
axes[0].set(xlabel="after block", ylabel="longest / median length", ylim=(0, 3.4))
axes[0].set_xticks(range(len(longest)))
axes[0].set_title("Lengths of patch tokens (dashed: an outlier)", fontsize=10)
axes[1].plot(times_even, "o-", color="C1")
axes[1].set(xlabel="block", ylabel="attention of all tokens,\n× an even share", ylim=(0, None))
axes[1].set_xticks(range(len(longest)))
axes[1].set_title("The patch that is looked at most", fontsize=10)
plt.show()
print(
    f"outliers in the last block: {int(found.outliers.sum())}; longest / median {longest[-1]:.1f}"
)
place = divmod(int(looked_at[0].argmax()), cols)
print(f"block 0: all tokens give {float(looked_at[0].max()):.1%} of their attention to one patch,")
print(f"{place} (row, col): {times_even[0]:.0f} times an even share")
assert not found.outliers.any()
if is_real:
    assert int(flow[0, num_prefix:].argmax()) == int(looked_at[0].argmax())

# %% [markdown]
# No outliers here; the paper finds them in larger models. A dot on a map may have another cause:
# all tokens look at one patch, a *sink*, however long it is. In the real model the first block has
# one, and it is the patch that rollout shows.
#
# To see what an outlier does to a map, one is planted. Before the last block a token of plain
# background is replaced by a copy of the class token, ten times as long as the median: a token that
# speaks of the whole picture. Version 1 puts it on a patch. Version 2 puts the same vector into a
# *register*, a token without a patch, as the paper does.
#
# Before you run it: what will the dot's weight be? LayerNorm stands before the attention.

# %%
from minivit.explain.methods.readout import block_inputs

inputs = block_inputs(model, first.images, count=len(model.blocks))[-1]  # (B, N, D)
median = inputs[0, num_prefix:].norm(dim=-1).median()
visitor = inputs[:, :1] * (10 * median / inputs[:, :1].norm())  # (B, 1, D), the class token's way
quiet = int(torch.where(first.cells == 0, right[0], math.inf).argmin())  # number of a patch


def class_rows(tokens: Tensor) -> Tensor:
    """The class token's weights in the last block, (H, N)."""
    with torch.no_grad():
        return model.blocks[-1](tokens, need_weights=True, rows=[0])[1][0, :, 0]


plain = class_rows(inputs)[:, num_prefix:]  # (H, N) -> (H, patches)
on_patch = inputs.clone()
on_patch[:, num_prefix + quiet] = visitor[:, 0]  # version 1: in the place of a patch
dotted = class_rows(on_patch)
in_register = torch.cat([inputs[:, :1], visitor, inputs[:, 1:]], dim=1)  # new: (B, 1 + N, D)
registered = class_rows(in_register)

# LayerNorm takes the length away: the copy is given what the class token gives to itself.
assert torch.allclose(dotted[:, num_prefix + quiet], dotted[:, 0], rtol=2e-2, atol=1e-6)
# One more key divides all other weights of a head by one number: the map keeps its pattern.
factors = registered[:, num_prefix + 1 :] / plain  # (H, patches)
assert torch.allclose(factors, factors[:, :1].expand_as(factors), rtol=1e-2)

maps = {
    "as it is": plain,
    "planted on a patch": dotted[:, num_prefix:],
    "in a register": registered[:, num_prefix + 1 :],
}
panels = []
for name, values in maps.items():
    values = values.mean(dim=0).view(rows, cols)  # (H, patches) -> (rows, cols)
    panels.append((f"{name}: max {float(values.max()):.3f}", first, values))
draw(panels, 3, frame=divmod(quiet, cols))
before = float(plain[:, quiet].mean())
print(f"framed: patch {divmod(quiet, cols)}, {before:.4f} before")
print(f"planted, it gets {float(dotted[:, num_prefix + quiet].mean()):.3f}")
print(f"the register gets {float(registered[:, num_prefix].mean()):.3f}, and the map stays")
print("each head's other weights times " + ", ".join(f"{float(f):.3f}" for f in factors[:, 0]))

# %% [markdown]
# Not the length draws attention, since LayerNorm divides it out, but the direction. The length is
# the mark by which such tokens are found. A register takes them off the picture, for the price of
# one more token and some care: it is a prefix token, and code that cuts off *one* token lays it on
# the map.
#
# Do not clip a dot away before you know what it is. `minivit.explain.diagnose` measures the known
# causes on one picture:

# %%
symptoms = minivit.explain.diagnose(model, first.images)
for symptom in symptoms:
    print(f"{symptom.name}: {symptom.text}")
print(f"{len(symptoms)} symptoms above their thresholds")

# %% [markdown]
# ## How far does a head look?
#
# Attention distance is the mean distance between a patch and what it looks at, weighted by
# attention:
#
# $$\frac1N\sum_i \frac{\sum_j A_{ij}\,\lVert p_i - p_j\rVert}{\sum_j A_{ij}}
# \qquad i, j \text{ patches, } p \text{ their middles in pixels}$$
#
# In figure 11 of the ViT paper some heads of the first blocks look near, like a convolution, and
# those of the last blocks look far. Before you run it: is the nearest head of this model in its
# first block?

# %%
y, x = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
places = torch.stack([y, x], dim=-1).flatten(0, 1)  # (rows, cols, 2) -> (rows·cols, 2)
middles = patch * (places + 0.5)  # of the patches, in pixels
between = torch.cdist(middles, middles)  # (rows·cols, rows·cols), in pixels
by_hand = []
for weights in attentions:
    among = weights[0, :, num_prefix:, num_prefix:]  # (H, patches, patches)
    by_hand.append(((among * between).sum(-1) / among.sum(-1)).mean(-1))  # -> (H,)
distances = torch.stack(by_hand)  # (blocks, H), in pixels that the model sees
assert torch.allclose(
    distances, minivit.explain.attention_distance(model, first.images)[0], rtol=1e-3
)

blocks, count = distances.shape
figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
axes.scatter(np.repeat(np.arange(blocks), count), distances.flatten() / patch, s=22, alpha=0.7)
axes.axhline(float(between.mean()) / patch, color="0.4", linestyle="--", label="all patches alike")
axes.set(xlabel="block", ylabel="distance in patches", xticks=range(blocks))
axes.set_ylim(0, 1.15 * float(max(distances.max(), between.mean())) / patch)
axes.set_title("How far each head looks, one picture", fontsize=10)
axes.legend(fontsize=8, loc="lower right")
plt.show()
near, far = (divmod(int(n), count) for n in (distances.argmin(), distances.argmax()))
for name, (block, head) in (("nearest", near), ("farthest", far)):
    print(f"{name}: block {block}, head {head}, {distances[block, head] / patch:.1f} patches")
assert near[0] > 0  # not in the first block

# %% [markdown]
# The rule of the figure does not hold for every model; measure yours. A distance of the grid's size
# is *not* a sign of a broad look: a head in which everybody looks at one sink has it too. So look
# at a row. Below, the framed patch is the one that looks.

# %%
looking = divmod(int(of_last[0][finder].argmax()), cols)
panels = []
for name, (block, head) in (("nearest", near), ("farthest", far)):
    values = query_attention(attentions, patch=looking, block=block)[0, head]  # (rows, cols)
    title = f"{name}: block {block}, head {head}, max {float(values.max()):.3f}"
    panels.append((title, first, values))
draw(panels, 2, width=3.4, frame=looking)

# %% [markdown]
# ## Which map answers which question
#
# | question | map | knows the class | needs |
# | --- | --- | --- | --- |
# | where does the class token take from, last block? | its row, head by head | no | one row |
# | what do the heads have in common? | mean over heads, beside the heads | no | one row |
# | through which patches *could* it have come? | rollout | no | all blocks |
# | which looks raise this class? | relevance, two classes side by side | yes | a head, gradients |
# | is a dot real? | lengths, columns, `diagnose` | no | one pass |
# | how local is a head? | attention distance, then a row | no | all blocks |
#
# None of them says that the answer *depends* on what is bright. That is lesson 7.
#
# ## Questions
#
# **1.** A model has a class token and 4 registers, its patches are 14 × 14, and it sees a picture
# of 280 × 182 pixels (height × width). How long is a row, and which entry is patch (2, 5)?
#
# <details><summary>Answer</summary>
#
# 20 × 13 patches, so 1 + 4 + 260 = 265 numbers. Patch (2, 5) is token 5 + 2 · 13 + 5 = 36. If 260
# is taken for a square, nothing fits (16² = 256); for 20 × 20 = 400 = 16 × 25 it would fit in
# silence.
#
# </details>
#
# **2.** A head has less of its map on the animal than a uniform map has. Is it useless, or broken?
#
# <details><summary>Answer</summary>
#
# Neither follows. To avoid the animal it has to tell it from the background, as a head that finds
# it has to. What the model makes of the background is a matter of values and later layers. Whether
# the answer depends on the head is seen when it is taken out (lesson 10), not on a map.
#
# </details>
#
# **3.** Each factor of rollout is half identity. Why do the rows become alike all the same?
#
# <details><summary>Answer</summary>
#
# What stays a token's own is ½ of ½ of ½ …: after 12 blocks 1/4096 of a row comes through residual
# connections alone, and the rest went through attention at least once. In each block the rows of R
# are replaced by averages of rows, and an average lies nearer to the others than what it is made
# of. A patch that all rows look at speeds it up: that part is equal in all rows at once.
#
# </details>

# %% [markdown]
# ## What people get wrong
#
# - **One token is cut off, whatever stands before the patches.** In facebookresearch/dinov2 issue
#   90 somebody has 845 numbers where 29 × 29 = 841 are expected: four registers are still there.
#   There it was an error message. Code that takes the first 841 after the class token draws a map
#   that is four cells late and says nothing.
# - **The grid is taken for a square, or turned.** In 2023, transformers' `Dinov2Backbone` gave
#   features of a picture of 448 × 224 pixels (height × width) as 16 × 32 (dinov2 issue 153;
#   transformers pull request 26092). Run on 4 × 8 patches, the packages fast-vit-rollout 0.1.1 and
#   torchxai-explain 0.3.0 draw 5 × 5. It is seen on pictures that are not square, and hardly ever
#   tested on them.
# - **Rollout without the identity.** The first version of vit-keras's map multiplied attention
#   alone (google-research/vision_transformer issue 18). On one picture the maps may look the same,
#   as versions 1 and 2 above do: no picture shows the fault, an equation does.
# - **A map per class is expected of attention.** In vit-keras issue 23 somebody wants the attention
#   to the dog and the attention to the cat. Softmax runs before any class is known, and there is
#   one map. A gradient by the class's logit is needed, and even then the maps differ by little.
# - **No attention comes back.** In transformers 5.24.0 a `ViTModel` with `output_attentions=True`
#   on its fused kernel returns an empty tuple and logs a line; `set_attn_implementation("eager")`
#   makes it return weights. In timm 1.0.31, `AttentionExtract` on a model with fused attention is
#   an error or an empty dictionary, depending on its method. Fused kernels never write the weights.
# - **Registers are trusted to clean every map.** In dinov2 issue 475 the large model has dots with
#   registers, too. A register is an offer; whether it is used has to be measured
#   (`minivit.explain.mass_by_kind`).
#
# The numbers of packages were measured by running those versions on a CPU.
#
# ## Sources
#
# - Dosovitskiy et al. 2021, An Image is Worth 16x16 Words, arXiv:2010.11929 (attention distance:
#   figure 11 there)
# - Caron et al. 2021, Emerging Properties in Self-Supervised Vision Transformers, arXiv:2104.14294
#   (heads of the last block)
# - Abnar & Zuidema 2020, Quantifying Attention Flow in Transformers, arXiv:2005.00928 (rollout)
# - Chefer, Gur & Wolf 2021, Generic Attention-model Explainability for Interpreting Bi-Modal and
#   Encoder-Decoder Transformers, arXiv:2103.15679 (relevance)
# - Darcet et al. 2023, Vision Transformers Need Registers, arXiv:2309.16588
# - Oquab et al. 2023, DINOv2: Learning Robust Visual Features without Supervision, arXiv:2304.07193
# - Zhang et al. 2016, Top-down Neural Attention by Excitation Backprop, arXiv:1608.00507 (pointing)
# - Raghu et al. 2021, Do Vision Transformers See Like Convolutional Neural Networks?,
#   arXiv:2108.08810 (near and far heads, and the data that they need)
