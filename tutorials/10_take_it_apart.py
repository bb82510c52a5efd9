# %% [markdown]
# # 10. Take it apart
#
# A map shows where a head looks. It does not show what depends on the head. Here parts of a
# trained model are silenced, and parts of one forward pass are put into another, until one head is
# found that finds the colour of an object; then it is asked whether the model needs it. An open
# project with a rubric ends the course.
#
# An hour to read with the exercises, half a minute to run. Before: lessons 3 (heads), 4 (residual
# stream), 6 (maps). Code of the library that this lesson follows: `minivit/explain/inside/`.

# %% tags=["imports"]
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch
from einops import rearrange
from IPython.display import Markdown
from PIL import Image
from torch import Tensor

import minivit
from minivit.data.scenes.dataset import (
    COLOURS,
    TEST_SEED,
    VALIDATION_SEED,
    Scene,
    make_scene,
)
from minivit.explain import (
    Recording,
    contributions,
    intervene,
    logit_lens,
    query_attention,
    rank_parts,
    record,
)
from minivit.viz.panels import overlay, show_photo, whole_box
from tutorials.checks import (
    check_colour_head,
    check_colour_of_logits,
    check_moved_share,
    check_silenced_set,
    check_without_head,
)
from tutorials.weights import real_or_shipped

plt.rcParams["figure.dpi"] = 80
torch.set_grad_enabled(False)
model = minivit.load_model("scenes")  # the model that is taken apart
depth, num_heads = model.config.depth, model.config.num_heads
print(f"{depth} blocks of {num_heads} heads, {len(model.labels)} classes: "
      f"{model.labels[0]}, {model.labels[1]}, …, {model.labels[-1]}")  # fmt: skip


def scenes_of(seed: int, count: int) -> tuple[list[Scene], Tensor, Tensor]:
    """Scenes, their pictures (B, 3, 96, 96), and their labels (B,)."""
    scenes = [make_scene(seed, index, image_size=96) for index in range(count)]
    images = torch.stack([model.preprocess(scene.image) for scene in scenes])
    return scenes, images, torch.tensor([scene.label for scene in scenes])


scenes, images, labels = scenes_of(VALIDATION_SEED, 48)  # to look for something
test_scenes, test_images, test_labels = scenes_of(TEST_SEED, 48)  # to see whether it holds

# %% [markdown]
# ## The stream is a sum
#
# A pre-norm block adds to its tokens, so the tokens after the last block are
#
# $$ x_L = x_0 + \sum_{l} \big(a_l + m_l\big), \qquad
# a_l = \sum_h o_{l,h} W^O_h + b_l, \qquad o_{l,h} = A_{l,h} V_{l,h} $$
#
# Here $x_0$ is the embedding, $a_l$ the output of the attention in block $l$, and $m_l$ the output
# of its MLP. Head $h$ computes $o_{l,h}$, its attention weights $A_{l,h}$ times its values
# $V_{l,h}$. $W^O_h$ is the part of the output projection that belongs to this head, and $b_l$ is
# the projection's bias. In this form the sum holds only without LayerScale, as in this model;
# where a block has it (DINOv2), it multiplies $a_l$ and $m_l$ by a learned number a channel before
# they are added.
#
# `record` keeps all these parts of a forward pass; hooks do it, and they are gone with the `with`.

# %%
with record(model) as recording:
    logits = model(images)
for (part, block), value in recording.values.items():
    if block == 0:
        print(f"{part:10} {tuple(value.shape)}")

stream = recording["embedding", 0]  # (B, N, D)
for block in range(depth):
    stream = stream + recording["attention", block] + recording["mlps", block]
assert torch.allclose(stream, recording["outputs", depth - 1], atol=1e-3)  # the equation holds
assert model.config.layer_scale is None
assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())

# %% [markdown]
# ## Exercise 10.1: the output without one head
#
# Given the heads' outputs $o_h$, the projection's weight and bias: write the attention's output
# $a$ without head `head`, all others and the bias kept. `outputs` is (B, N, H, d); the projection
# reads it flattened as H blocks of d numbers. torch computes `x @ weight.T + bias`, so the
# *columns* of `weight` belong to the inputs.


# %% exercise="10.1" tags=["stub"]
def without_head(outputs: Tensor, weight: Tensor, bias: Tensor, head: int) -> Tensor:
    """(B, N, H, d), (D, H·d), (D,) -> (B, N, D)."""
    ...


check_without_head(without_head)

# %% [markdown] exercise="10.1" tags=["hint"]
# <details><summary>Hint</summary>
#
# The head must be silenced *before* the projection, which mixes all heads into every channel.
# Multiply by a mask over H that has a 0 in one place, or add up the other heads'
# `outputs[:, :, h] @ weight[:, h·d : (h + 1)·d].T`. Do not write into `outputs`: it is not yours.
#
# </details>

# %% [markdown] exercise="10.1" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def without_head(outputs: Tensor, weight: Tensor, bias: Tensor, head: int) -> Tensor:
#     keep = torch.ones(outputs.shape[2], 1)  # (H, 1)
#     keep[head] = 0
#     kept = (outputs * keep).flatten(2)  # (B, N, H, d) -> (B, N, H·d)
#     return kept @ weight.T + bias  # (B, N, H·d) -> (B, N, D)
# ```
#
# </details>

# %% [markdown]
# Three versions follow: the sum over heads by hand; a hook in the running model, which silences
# one of them; and the library's `intervene`, which also puts everything back.

# %%
block, head = 1, 0
attn = model.blocks[block].attn
o = recording["heads", block]  # (B, N, H, d)

# version 1: the sum by hand, without one term
parts = rearrange(attn.proj.weight, "e (h d) -> h d e", h=num_heads)  # (D, D) -> (H, d, D)
written = torch.einsum("bnhd,hde->bhne", o, parts)  # (B, H, N, D): what each head adds
by_hand = written.sum(dim=1) - written[:, head] + attn.proj.bias  # (B, N, D)


# version 2, new: in the model, so that later blocks see it
def silence(module: torch.nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor]:
    heads = arguments[0].unflatten(-1, (num_heads, -1))  # (B, N, D) -> (B, N, H, d)
    keep = torch.arange(num_heads)[:, None] != head  # (H, 1)
    return ((heads * keep).flatten(-2),)  # (B, N, H, d) -> (B, N, D)


handle = attn.proj.register_forward_pre_hook(silence)
by_hook = model(images)
handle.remove()  # forgotten, it would silence the head for ever

# version 3, new: any parts, and nothing stays
with intervene(model, heads={block: [head]}), record(model, "attention") as silent:
    by_library = model(images)
assert torch.allclose(silent["attention", block], by_hand, atol=1e-4)
assert torch.equal(by_hook, by_library)
assert torch.equal(model(images), logits)  # as before, to the bit
print("three ways, one result: this is minivit.explain.intervene")

# %% [markdown]
# ## What does the answer consist of?
#
# The model has 48 classes, class 8 · shape + colour. Two answers hide in them: which colour,
# which shape. For a colour $c$, the probability is the sum over shapes $s$:
#
# $$ \log p(c) = \log \sum_s p(s, c) = \operatorname{logsumexp}_s \big(\log p(s, c)\big) $$
#
# ## Exercise 10.2: the colour in the logits
#
# Return the log-probabilities of the 8 colours for logits of 48 classes, in any number of leading
# dimensions.


# %% exercise="10.2" tags=["stub"]
def colour_log_probability(logits: Tensor) -> Tensor:
    """(…, 48) -> (…, 8)."""
    ...


check_colour_of_logits(colour_log_probability)

# %% [markdown] exercise="10.2" tags=["hint"]
# <details><summary>Hint</summary>
#
# First `log_softmax` over all 48. Then `unflatten(-1, (6, 8))` folds the classes into shapes and
# colours, in this order, and `logsumexp` over one of the two dimensions adds probabilities.
#
# </details>

# %% [markdown] exercise="10.2" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def colour_log_probability(logits: Tensor) -> Tensor:
#     folded = logits.log_softmax(dim=-1).unflatten(-1, (6, 8))  # (…, 48) -> (…, 6, 8)
#     return folded.logsumexp(dim=-2)  # (…, 6, 8) -> (…, 8)
# ```
#
# </details>

# %%
NUM_COLOURS = len(COLOURS)


def colour_and_shape(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the colours (…, 8) and of the shapes (…, 6)."""
    folded = rearrange(logits.log_softmax(-1), "... (s c) -> ... s c", c=NUM_COLOURS)
    return folded.logsumexp(dim=-2), folded.logsumexp(dim=-1)


def accuracies(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Share of pictures whose colour is right, and whose shape is right."""
    colours, shapes = colour_and_shape(logits)
    right = (colours.argmax(-1) == labels % 8, shapes.argmax(-1) == labels // 8)
    return right[0].float().mean().item(), right[1].float().mean().item()


colour, shape = accuracies(logits, labels)
print(f"the whole model: colour right in {100 * colour:.0f} %, shape in {100 * shape:.0f} % of "
      f"{len(labels)} scenes; guessing: {100 / 8:.1f} and {100 / 6:.1f} %")  # fmt: skip
assert min(colour, shape) > 0.95

# %% [markdown]
# ## When does it know? The logit lens
#
# The stream can be read after any block with the last norm and the head. **Before you run it:**
# which is known first, the colour or the shape, and after how many of the four blocks?

# %%
lens = logit_lens(model, images)  # (B, L + 1, 48)
assert torch.allclose(lens[:, -1], logits, atol=1e-4)
known = [accuracies(lens[:, row], labels) for row in range(depth + 1)]
figure, axis = plt.subplots(figsize=(5.6, 3), layout="constrained")
for index, (name, chance) in enumerate((("colour", 1 / 8), ("shape", 1 / 6))):
    (line,) = axis.plot([100 * row[index] for row in known], marker="o", label=name)
    axis.axhline(100 * chance, color=line.get_color(), linestyle=":", linewidth=1)
axis.set(
    xticks=range(depth + 1),
    ylim=(0, 105),
    xlabel="blocks before the head reads",
    ylabel="right (%)",
    title="the logit lens; dotted: guessing",
)
axis.legend()
plt.show()
for row, (colour, shape) in enumerate(known):
    print(f"after {row} blocks: colour {100 * colour:3.0f} %, shape {100 * shape:3.0f} %")
assert known[2][0] > 0.4 > known[2][1] and known[3][0] > known[3][1] + 0.3

# %% [markdown]
# The colour arrives block by block, and after two it is right in most pictures. The shape comes
# with the last block. But the lens reads with a head that was trained for the last block only:
# what it cannot read may be there in another form. So it says "not yet readable", not "not yet
# known".
#
# ## Knock out
#
# `rank_parts` silences each head and each MLP alone, and asks for the log-probability of the class
# again. **Before you run it:** is a head missed more when zeros take its place, or when its mean
# over the tokens does?

# %%
ranking = {way: rank_parts(model, images, replace=way) for way in ("zero", "mean")}
figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.2), layout="constrained")
for axis, (way, ranked) in zip(axes, ranking.items(), strict=True):
    grid = torch.cat([ranked.heads, ranked.mlps[:, None]], dim=1)  # (L, H + 1)
    drawn = axis.imshow(grid, cmap="RdBu", vmin=-7, vmax=7, aspect="auto")
    for row in range(depth):
        for column in range(num_heads + 1):
            value = grid[row, column].item()
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=9,
                      color="white" if abs(value) > 4 else "black")  # fmt: skip
    axis.set_xticks(range(num_heads + 1), [*(f"head {h}" for h in range(num_heads)), "MLP"])
    axis.set_yticks(range(depth), [f"block {b}" for b in range(depth)])
    axis.set_title(f"replaced by {'zeros' if way == 'zero' else 'its mean'}")
figure.colorbar(drawn, ax=axes, label="log-probability of the class\nminus that of the whole model")
plt.show()
zero, mean = ranking["zero"].heads, ranking["mean"].heads
missed = divmod(zero.argmin().item(), num_heads)
print(f"most missed: head {missed[1]} of block {missed[0]}; all but "
      f"{(zero < -0.1).sum()} of {zero.numel()} heads are missed by less than 0.1")  # fmt: skip
for block, head in ((1, 0), (3, 1)):
    print(f"head {head} of block {block}: {zero[block, head]:.2f} with zeros in its place, "
          f"{mean[block, head]:.2f} with its mean")  # fmt: skip
assert (zero > -0.1).sum() > zero.numel() / 2 and mean[3, 1] > -0.1
assert missed == (1, 0) and mean[1, 0] < zero[1, 0] and zero[3, 1] < mean[3, 1] - 0.5

# %% [markdown]
# More than half of the heads can be silenced alone with hardly a loss. And what takes a head's
# place matters, in either direction. Head 1 of block 3 seems needed when zeros replace it (-1.18),
# but not when its mean does (-0.04): what the model needs of it is nearly the same at all tokens.
# For head 0 of block 1 the mean is the worse of the two: the same output at every token misleads
# more than no output. Name the replacement whenever you name an effect.
#
# One number for a head hides *what* is lost. **Before you run it:** without any of the three heads
# of the last block, is the colour lost, the shape, or both?


# %%
def answers_without(
    heads: dict[int, list[int]], tokens: list[int] | None = None
) -> tuple[float, float]:
    """Accuracies of colour and shape without some heads, on the scenes kept for testing."""
    with intervene(model, heads=heads, tokens=tokens):
        return accuracies(model(test_images), test_labels)


everything = list(range(num_heads))
print(f"{'without':36} colour  shape")
for name, heads, tokens in (
    ("nothing", {}, None),
    ("head 0 of block 1", {1: [0]}, None),
    ("head 0 of block 1, class token only", {1: [0]}, [0]),
    ("all heads of block 1", {1: everything}, None),
    ("all heads of block 3", {3: everything}, None),
):
    colour, shape = answers_without(heads, tokens)
    print(f"{name:36} {100 * colour:4.0f} %  {100 * shape:4.0f} %")
    if name == "all heads of block 3":
        assert colour > 0.9 and shape < 0.4
    if name == "head 0 of block 1":
        assert colour > 0.9 and shape < 0.7
    if name == "head 0 of block 1, class token only":
        assert min(colour, shape) > 0.9

# %% [markdown]
# The two halves of the answer come apart. Without the last block's heads the model still knows
# colours and guesses shapes. Head 0 of block 1 works for the shape, and not at the class token: it
# does its work at the patches, and the class token reads the result later.
#
# ## Two pictures: patch activations
#
# A zero is a state that the model never saw. Another way replaces a part by *the same part of
# another picture*, and asks whether the answer moves towards that picture's. The best second
# picture differs in one thing. Scenes know their objects, so this one gets another paint:

# %%
names = list(COLOURS)
paints = np.array(list(COLOURS.values()), dtype=np.float32)  # (8, 3), RGB


def repainted(scene: Scene) -> tuple[Image.Image, int]:
    """The scene with its main object in the colour three further on, and that colour's number."""
    main = scene.objects[0]
    old = names.index(main.colour)
    new = (old + 3) % NUM_COLOURS
    pixels = np.asarray(scene.image).astype(np.float32)  # (height, width, 3)
    pixels += main.mask[..., None] * 0.9 * (paints[new] - paints[old])  # 0.9: the mean light
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), new


twins = [repainted(scene) for scene in scenes]
twin_images = torch.stack([model.preprocess(picture) for picture, _ in twins])  # (B, 3, 96, 96)
twin_colours = torch.tensor([colour for _, colour in twins])  # (B,)
colours, shapes = colour_and_shape(model(twin_images))
assert (colours.argmax(-1) == twin_colours).float().mean() > 0.9
assert (shapes.argmax(-1) == labels // 8).float().mean() > 0.9

chosen = next(i for i, scene in enumerate(scenes) if len(scene.objects) == 3)
figure, axes = plt.subplots(1, 2, figsize=(4.6, 2.7), layout="constrained")
for axis, picture, name in zip(
    axes, (scenes[chosen].image, twins[chosen][0]), ("the picture", "its twin"), strict=True
):
    answer = model(model.preprocess(picture)[None]).argmax().item()
    axis.imshow(picture, interpolation="nearest")
    axis.set_title(f"{name}:\n{model.labels[answer]}", fontsize=10)
    axis.set_axis_off()
plt.show()

# %% [markdown]
# What is measured is a difference of log-probabilities, $f = \log p(\text{twin's colour}) - \log
# p(\text{own colour})$: below zero for the picture, above zero for its twin. A patched pass lies
# between them, or not.
#
# ## Exercise 10.3: the share that moved
#
# Given $f$ for B pictures, for the donors (twins), and for the patched passes: which share of the
# way did the patch go, 0 for nothing and 1 for all of it? Use the ratio of the means over the
# pictures (a mean of ratios is ruled by the pairs that hardly differ). A patch can also overshoot,
# or move the answer the other way: then the share is above 1, or below 0.


# %% exercise="10.3" tags=["stub"]
def moved_share(picture: Tensor, donor: Tensor, patched: Tensor) -> float | Tensor:
    """(B,), (B,), (B,) -> one number."""
    ...


check_moved_share(moved_share)

# %% [markdown] exercise="10.3" tags=["hint"]
# <details><summary>Hint</summary>
#
# How far did the patched pass get from the picture, and how far is the donor from it?
#
# </details>

# %% [markdown] exercise="10.3" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def moved_share(picture: Tensor, donor: Tensor, patched: Tensor) -> Tensor:
#     return (patched - picture).mean() / (donor - picture).mean()
# ```
#
# </details>

# %% [markdown]
# **Where is the colour?** Take the stream after $k$ blocks from the twin, at some tokens only:
# those of the object's patches, those of all other patches, or the class token. **Before you run
# it:** draw the three curves over $k = 0 \dots 4$.


# %%
def cells_of(scene: Scene) -> Tensor:
    """Patches that show a pixel of the main object: (N - 1,) boolean."""
    mask = torch.from_numpy(scene.objects[0].mask)  # (96, 96)
    return rearrange(mask, "(r h) (c w) -> (r c) (h w)", h=8, w=8).any(dim=1)  # (144, 64) -> (144,)


def colour_score(image: Tensor, own: int, other: int) -> float:
    """log p(other colour) - log p(own colour) of one picture (1, 3, 96, 96)."""
    colours, _ = colour_and_shape(model(image))
    return (colours[0, other] - colours[0, own]).item()


rows, cols = model.grid_size


def from_twin(index: int, blocks: int, tokens: list[int], donor: Recording) -> float:
    """The score of a picture whose stream after `blocks` blocks is the twin's at some tokens."""
    own, other = labels[index].item() % 8, twin_colours[index].item()
    if blocks:
        places = {"outputs": [blocks - 1], "tokens": tokens}
    else:  # before the first block, patches have names of their own; the class token is the same
        places = {"patches": [divmod(token - 1, cols) for token in tokens if token > 0]}
    with intervene(model, by=donor, **places):
        return colour_score(images[index : index + 1], own, other)


groups = ("the object's patches", "all other patches", "the class token")
pairs = [i for i, scene in enumerate(scenes) if len(scene.objects) == 3][:8]
scores = torch.zeros(3, depth + 1, len(pairs))
ends = torch.zeros(2, len(pairs))  # picture, twin
recordings, tokens_of = {}, {}
for column, index in enumerate(pairs):
    own, other = labels[index].item() % 8, twin_colours[index].item()
    ends[0, column] = colour_score(images[index : index + 1], own, other)
    with record(model, "embedding", "outputs") as recordings[index]:
        ends[1, column] = colour_score(twin_images[index : index + 1], own, other)
    shown = cells_of(scenes[index])
    tokens_of[index] = [
        (shown.nonzero()[:, 0] + 1).tolist(),  # token 0 is the class token
        ((~shown).nonzero()[:, 0] + 1).tolist(),
        [0],
    ]
    for group in range(3):
        for blocks in range(depth + 1):
            scores[group, blocks, column] = from_twin(
                index, blocks, tokens_of[index][group], recordings[index]
            )
share = (scores - ends[0]).mean(-1) / (ends[1] - ends[0]).mean()  # (3, L + 1)

figure, axis = plt.subplots(figsize=(5.6, 3), layout="constrained")
for group, name in enumerate(groups):
    axis.plot(100 * share[group], marker="o", label=name)
axis.set(
    xticks=range(depth + 1),
    xlabel="blocks before the stream is patched",
    ylabel="moved towards the twin (%)",
    title=f"where the colour is; mean of {len(pairs)} pairs",
)
axis.legend(fontsize=8)
plt.show()
for group, name in enumerate(groups):
    print(f"{name:22}", " ".join(f"{round(100 * value):5d} %" for value in share[group].tolist()))
assert share[0, 0] > 0.95 and share[1].abs().max() < 0.1 and share[2, -1] > 0.99
assert 0.2 < share[2, 2] < 0.7 and (share.sum(0) - 1).abs().max() < 0.2

# %% [markdown]
# At first all of the colour is in the object's patches, at the end all of it is in the class
# token, and the three curves add up to nearly 100 %. In between it is on the way: the first large
# step is block 1. Other patches never carry it. Patch by patch, for the pair above:

# %%
index = chosen
own, other = labels[index].item() % 8, twin_colours[index].item()
with record(model, "embedding", "outputs") as donor:
    twin_score = colour_score(twin_images[index : index + 1], own, other)
start = colour_score(images[index : index + 1], own, other)
figure, axes = plt.subplots(1, 3, figsize=(8.6, 2.9), layout="constrained")
for axis, blocks in zip(axes, (0, 2, 3), strict=True):
    effect = torch.tensor(
        [from_twin(index, blocks, [1 + patch], donor) - start for patch in range(rows * cols)]
    ) / (twin_score - start)  # (144,)
    show_photo(axis, scenes[index].image, whole_box(scenes[index].image), grey=True)
    drawn = axis.imshow(100 * effect.view(rows, cols), alpha=0.65, cmap="RdBu_r", vmin=-6, vmax=6,
                        extent=(0, 96, 96, 0))  # fmt: skip
    alone = 100 * effect[cells_of(scenes[index])].sum()
    both = (from_twin(index, blocks, tokens_of[index][0], donor) - start) / (twin_score - start)
    assert alone < 20 if blocks == 0 else alone > 30
    print(f"after {blocks} blocks: the object's patches one by one, sum {alone:.0f} %; together "
          f"{100 * both:.0f} %")  # fmt: skip
    axis.set_title(f"after {blocks} blocks", fontsize=10)
    axis.set_axis_off()
figure.colorbar(drawn, ax=axes, label="moved by this patch alone (%)")
plt.show()

# %% [markdown]
# One patch in another colour hardly counts at the beginning: added up, the patches move the answer
# by a few percent, and together by all of it. One reading: the first blocks compare a patch with
# its neighbours, and a single one is outvoted. After two blocks the effects of single patches add
# up to most of what they do together.
#
# ## The head that finds colour
#
# Now the question is *which head* brings it. For each head, its output **at the class token** is
# taken from another scene, one with another colour and another shape, and both halves of the
# answer are looked at: does the patch move the colour, and does it move the shape?
#
# ## Exercise 10.4: find it
#
# Search on `images` and `labels`. Give block and head, counted from 0, of the head that moves the
# colour most *without* moving the shape. You need `record(model, "heads")` of the donors, and
# `intervene(model, heads={block: [head]}, tokens=[0], by=recording)`; donors may be
# `images.roll(1, dims=0)`, without the pairs that share a colour or a shape: filter takers and
# donors alike, before you record. The check measures the shares on other scenes.

# %% exercise="10.4" tags=["stub"]
colour_block, colour_head = ..., ...

check_colour_head((colour_block, colour_head))

# %% [markdown] exercise="10.4" tags=["hint"]
# <details><summary>Hint</summary>
#
# For pairs (A, B) the colour's score is log p(colour of B) - log p(colour of A), as above, and the
# shape's is made in the same way. Two shares for each of 12 heads: sort by the colour's, and look
# at the shape's. The largest share of colour *and* of shape is not what is asked for.
#
# </details>

# %% [markdown] exercise="10.4" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# from minivit.data.scenes.dataset import VALIDATION_SEED, ScenesDataset
# from minivit.explain import intervene, record
#
# model = minivit.load_model("scenes")
# data = ScenesDataset(VALIDATION_SEED, 24, image_size=96)
# pixels, labels = (torch.stack(column) for column in zip(*(data[i] for i in range(24))))
# images = pixels / 127.5 - 1  # as model.preprocess does
# differ = (labels % 8 != labels.roll(1) % 8) & (labels // 8 != labels.roll(1) // 8)
# mine, theirs = labels[differ], labels.roll(1)[differ]
# pair = torch.arange(len(mine))
#
#
# def scores(logits: Tensor) -> tuple[float, float]:
#     folded = logits.log_softmax(-1).unflatten(-1, (6, 8))  # (B, 48) -> (B, 6, 8)
#     colours, shapes = folded.logsumexp(1), folded.logsumexp(2)
#     colour = colours[pair, theirs % 8] - colours[pair, mine % 8]
#     shape = shapes[pair, theirs // 8] - shapes[pair, mine // 8]
#     return colour.mean().item(), shape.mean().item()
#
#
# with torch.no_grad(), record(model, "heads") as donors:
#     end = scores(model(images.roll(1, dims=0)[differ]))
# with torch.no_grad():
#     start = scores(model(images[differ]))
# best = {}
# for block in range(4):
#     for head in range(3):
#         with torch.no_grad(), intervene(model, heads={block: [head]}, tokens=[0], by=donors):
#             got = scores(model(images[differ]))
#         colour, shape = ((g - s) / (e - s) for g, s, e in zip(got, start, end))
#         best[block, head] = colour - abs(shape)
# colour_block, colour_head = max(best, key=best.get)
# ```
#
# </details>

# %%
donor_labels = labels.roll(1)
differ = (labels % 8 != donor_labels % 8) & (labels // 8 != donor_labels // 8)
mine, theirs = labels[differ], donor_labels[differ]  # (P,)
takers, donors = images[differ], images.roll(1, dims=0)[differ]  # (P, 3, 96, 96)


def both_scores(logits: Tensor) -> Tensor:
    """Mean scores of colour and shape, positive where the donor's wins: (P, 48) -> (2,)."""
    colours, shapes = colour_and_shape(logits)
    pair = torch.arange(len(mine))
    colour = colours[pair, theirs % 8] - colours[pair, mine % 8]
    shape = shapes[pair, theirs // 8] - shapes[pair, mine // 8]
    return torch.stack([colour.mean(), shape.mean()])


with record(model, "heads") as donor_heads:
    end = both_scores(model(donors))
start = both_scores(model(takers))
effects = torch.zeros(2, 2, depth, num_heads)  # class token or all tokens; colour or shape
for row, tokens in enumerate(([0], None)):
    for block in range(depth):
        for head in range(num_heads):
            with intervene(model, heads={block: [head]}, tokens=tokens, by=donor_heads):
                moved = (both_scores(model(takers)) - start) / (end - start)  # (2,)
            effects[row, :, block, head] = moved

figure, axes = plt.subplots(
    1, 2, figsize=(8.4, 3.7), sharex=True, sharey=True, layout="constrained"
)
for axis, effect, title in zip(axes, effects, ("class token only", "all tokens"), strict=True):
    axis.axhline(0, color="grey", linewidth=0.7)
    axis.axvline(0, color="grey", linewidth=0.7)
    for block in range(depth):
        x, y = 100 * effect[0, block], 100 * effect[1, block]
        axis.scatter(x, y, label=f"block {block}")
        for head in range(num_heads):
            if max(x[head], y[head]) > 15:
                axis.annotate(f"{block}.{head}", (x[head], y[head]), xytext=(5, 4),
                              textcoords="offset points", fontsize=9)  # fmt: skip
    axis.set(title=f"patched: {title}", xlabel="colour moved (%)", xlim=(-8, 36), ylim=(-8, 48))
axes[0].set_ylabel("shape moved (%)")
axes[0].legend(fontsize=8, loc="upper left")
plt.show()
at_class = effects[0]  # (2, L, H)
finder = divmod((at_class[0] - at_class[1].abs()).argmax().item(), num_heads)
print(f"{len(mine)} pairs; head {finder[1]} of block {finder[0]}: colour moved by "
      f"{100 * at_class[0][finder]:.0f} %, shape by {100 * at_class[1][finder]:.0f} %")  # fmt: skip
assert finder == (1, 2) and at_class[0][finder] > 0.2 > 0.1 > at_class[1][finder].abs()
assert effects[1, 0, 1, 2] < at_class[0][finder] - 0.1
assert effects[1, 1, 1, 0] > 0.3 > 0.05 > effects[0, 1, 1, 0].abs()
assert at_class[:, 3, 2].min() > 0.15 and (at_class[1, 3, :2] > 1.5 * at_class[0, 3, :2]).all()

# %% [markdown]
# In block 3, head 2 moves colour and shape, and heads 0 and 1 mostly the shape. Head 0 of block 1
# moves the shape when all tokens are patched and hardly anything at the class token, as the
# knock-out said. And one head moves the colour alone: **head 2 of block 1**. (At all
# tokens it moves less than at the class token alone. Why? The project below has room for it.)
#
# What does it look at, and what does it write?

# %%
_, attentions = model(test_images, return_attention=minivit.AttentionRows(blocks=[1], queries=[0]))
maps = query_attention(attentions, token=0)[:, 2]  # (B, H, rows, cols) -> (B, rows, cols)
cells = torch.stack([cells_of(scene) for scene in test_scenes]).view_as(maps)  # (B, rows, cols)
mass = (maps * cells).flatten(1).sum(1).mean()
print(f"{100 * mass:.0f} % of its weight lies on the main object, which has "
      f"{100 * cells.float().mean():.0f} % of the patches")  # fmt: skip
shares = contributions(model, images, labels)
print("written straight into the logit of the class:")
for block, head in ((1, 0), (1, 2), (3, 0), (3, 1), (3, 2)):
    print(f"  head {head} of block {block} {shares.heads[:, block, head].mean():6.2f}")
assert shares.error.abs().max() < 1e-3  # all shares add up to the logit
assert shares.heads[:, 1, 2].mean() > 1 and shares.heads[:, 1, 0].mean() < 0.5 and mass > 0.6

figure, axes = plt.subplots(2, 4, figsize=(7.2, 3.9), layout="constrained")
crowded = [index for index, scene in enumerate(test_scenes) if len(scene.objects) == 3]
for (above, below), index in zip(axes.T, crowded, strict=False):
    picture = test_scenes[index].image
    show_photo(above, picture, whole_box(picture))
    show_photo(below, picture, whole_box(picture), grey=True)
    overlay(below, maps[index], whole_box(picture))
    above.set_title(model.labels[test_labels[index]], fontsize=9)
    above.set_axis_off()
    below.set_axis_off()
figure.suptitle("head 2 of block 1: what the class token looks at (each map from 0 to its maximum)",
                fontsize=9)  # fmt: skip
plt.show()

# %% [markdown]
# Its map lies on the object, and it writes straight into the logit. So this head finds the colour.
# **Before you run it:** how much of the accuracy in colours is lost without it, and by how much
# does the logit fall?

# %%
each = torch.arange(len(labels))
print(f"{'':16} wrote into the logit   logit without it changes by")
for block, head in ((1, 0), (1, 2), (3, 0), (3, 1), (3, 2)):
    with intervene(model, heads={block: [head]}):
        removed = (model(images) - logits)[each, labels].mean()
    print(f"block {block}, head {head} {shares.heads[:, block, head].mean():15.2f} "
          f"{removed:22.2f}")  # fmt: skip
    assert removed < -5 or (block, head) != (1, 0)
    assert removed > 0.3 or (block, head) != (1, 2)

print("\non the scenes kept for testing:")
lost = []
for name, heads in (("the whole model", {}), ("without head 2 of block 1", {1: [2]})):
    with intervene(model, heads=heads):
        answer = model(test_images)
    true_colour = colour_and_shape(answer)[0][each, test_labels % 8].mean()
    print(f"{name:26} colour right in {100 * accuracies(answer, test_labels)[0]:.0f} %, "
          f"its log-probability {true_colour:.4f}")  # fmt: skip
    lost.append(true_colour)
    assert accuracies(answer, test_labels)[0] == 1
assert lost[0] - lost[1] < 0.002

with intervene(model, heads={1: [2]}), record(model, "outputs") as left:
    rest = contributions(model, images, labels)
spread = [kept["outputs", 3][:, 0].std(dim=-1).mean() for kept in (recording, left)]  # class token
print(f"\nwithout it, the logit of the class goes from {shares.logit.mean():.2f} to "
      f"{rest.logit.mean():.2f}:")  # fmt: skip
for name, difference in (
    ("its own share", (rest.heads - shares.heads)[:, 1, 2]),
    ("the heads of block 3", (rest.heads - shares.heads)[:, 3].sum(-1)),
    ("the MLP of block 3", (rest.mlps - shares.mlps)[:, 3]),
):
    print(f"  {name:21} {difference.mean():+.2f}")
made_up = (rest.logit - shares.logit + shares.heads[:, 1, 2]).mean()
without_own = (shares.logit - shares.bias - shares.heads[:, 1, 2]).mean()  # what the norm scales
by_norm = without_own * (spread[0] / spread[1] - 1)
print(f"made up {made_up:+.2f} in all, about {by_norm:+.2f} of it by the last norm, which "
      f"divides by {spread[1] / spread[0]:.3f} of what it was")  # fmt: skip
assert (rest.heads - shares.heads)[:, 3].sum(-1).mean() > 1 and 0 < by_norm < made_up / 2

# %% [markdown]
# No picture's colour was lost, and the log-probability of the colour is nearly the same: the
# probability is close to 1 with the head and without it. The logit even rises. What the head wrote
# is missing, but the last block's heads and its MLP write more than before, and more than make up
# for it. (A smaller part of what is made up is the last norm's: it divides by a little less, so
# that every share grows.) To move the answer and to be needed are two things. The colour also comes
# in other ways, through other heads and later blocks. "The head that finds colour" is true of what
# it does, and false of what it is needed for.
#
# Head 0 of block 1 is the opposite case. It writes next to nothing into the logit itself; it
# writes what later blocks need, and is missed far more than its own share. A share counts what a
# part wrote into the sum; an intervention counts what follows from it.
#
# ## The same question to a model of photos
#
# A model without classes has no log-probability. Its answer is the class token's feature $y$, and
# the share that moved is a projection: $s = \frac{(y' - y)\cdot(y_b - y)}{\lVert y_b -
# y\rVert^2}$, 1 when the feature becomes the donor's. The donors are the same picture with its
# colour channels exchanged (R, G, B become B, R, G), and another picture. **Before you run it:**
# at the class token, the heads of which blocks move the feature, early ones or late ones?

# %%
model_of_photos, is_real = real_or_shipped()
if is_real:
    pictures = [minivit.open_image(f"photos/{name}.jpg") for name in ("cat", "coffee", "astronaut")]
    prepare = replace(model_of_photos.preprocess, image_size=(112, 112))  # 8 x 8 patches
else:
    pictures = [scene.image for scene in scenes[:3]]
    prepare = model_of_photos.preprocess


def exchanged(picture: Image.Image) -> Image.Image:
    """The picture with its colours in the order B, R, G."""
    red, green, blue = picture.split()
    return Image.merge("RGB", (blue, red, green))


inputs = torch.stack([prepare(picture) for picture in pictures])  # (3, 3, height, width)
donors_of = {
    "other colours": torch.stack([prepare(exchanged(picture)) for picture in pictures]),
    "other picture": inputs.roll(1, dims=0),
}


def feature(inputs: Tensor) -> Tensor:
    """The class token after the last norm: (B, D)."""
    return model_of_photos.encode(inputs)[:, 0]


def patched_share(heads: dict[int, list[int]], donor_heads: Recording, step: Tensor) -> float:
    """How far the features go along `step` (B, D) when heads are the donors' at the class token."""
    with intervene(model_of_photos, heads=heads, tokens=[0], by=donor_heads):
        moved = feature(inputs) - own  # (B, D)
    return ((moved * step).sum() / step.square().sum()).item()


own = feature(inputs)  # (B, D)
config = model_of_photos.config
by_block = torch.zeros(2, config.depth)
by_head = torch.zeros(2, config.num_heads)  # of the last block
for row, donor_inputs in enumerate(donors_of.values()):
    with record(model_of_photos, "heads") as donor_heads:
        step = feature(donor_inputs) - own  # (B, D)

    for block in range(config.depth):
        every = {block: list(range(config.num_heads))}
        by_block[row, block] = patched_share(every, donor_heads, step)
    for head in range(config.num_heads):
        by_head[row, head] = patched_share({config.depth - 1: [head]}, donor_heads, step)

figure, axes = plt.subplots(1, 2, figsize=(8.4, 3), sharey=True, layout="constrained")
for row, name in enumerate(donors_of):
    axes[0].plot(100 * by_block[row], marker="o", label=name)
    axes[1].bar(torch.arange(config.num_heads) + 0.4 * row - 0.2, 100 * by_head[row], 0.4)
axes[0].set(xlabel="block, all its heads", ylabel="feature moved (%)", xticks=range(config.depth))
axes[0].legend(title="from")
axes[1].set(xlabel=f"head of block {config.depth - 1}", xticks=range(config.num_heads))
figure.suptitle("patched at the class token", fontsize=11)
plt.show()
late = 100 * by_block[:, -1]
first, last = by_head.argmax(dim=1).tolist()
Markdown(
    f"In {'DINOv2 ViT-S/14' if is_real else 'the shipped ViT'} the last block moves the feature by "
    f"{late[0]:.0f} % (other colours) and {late[1]:.0f} % (other picture), the block before it by "
    f"{100 * by_block[0, -2]:.0f} and {100 * by_block[1, -2]:.0f} %. Of the last block's heads, "
    + (
        f"head {first} moves most for both. "
        if first == last
        else f"head {first} moves most for colours and head {last} for another picture. "
    )
    + "Three pictures are few: read this as a question for the project, not as a result."
)

# %% [markdown]
# ## Exercise 10.5, open: take the colours away
#
# Find heads whose outputs **at the class token** are silenced together (by zeros) so that the
# shape stays and the colour goes: colour right in 30 % at most (guessing: 12.5), shape right in
# 75 % at least. Fewer heads are better; five are possible. Give a dictionary from blocks to lists
# of heads. The check draws other scenes than those of your search. The best set of a search looks
# better where it was found, so do not stop at 30 %: search on both `images` and `test_images`, or
# go on until the colour is well below. The cell after it has the control, without which a result
# would mean little: six heads drawn at random.

# %% exercise="10.5" tags=["stub"]
silenced = ...  # {block: [head, …], …}

check_silenced_set(silenced)

# %% [markdown] exercise="10.5" tags=["hint"]
# <details><summary>Hint</summary>
#
# Begin with the head that you found, and add one head at a time: the one after which colour minus
# shape is smallest. A step is 11 passes at most. Heads of block 0 help, although patching showed
# no colour in them: what could they be needed for?
#
# </details>

# %% [markdown] exercise="10.5" tags=["solution"]
# <details><summary>Solution (the greedy search)</summary>
#
# ```python
# silenced = {0: [0, 1], 1: [1, 2], 2: [1], 3: [2]}  # six heads; five are enough
# ```
#
# </details>

# %%
generator = torch.Generator().manual_seed(0)
controls = []
for _ in range(10):
    drawn = torch.randperm(depth * num_heads, generator=generator)[:6].tolist()
    sets: dict[int, list[int]] = {}
    for number in drawn:
        sets.setdefault(number // num_heads, []).append(number % num_heads)
    controls.append(answers_without(sets, [0]))
controls = 100 * torch.tensor(controls)  # (10, 2)
print(f"six heads drawn at random, silenced at the class token, {len(controls)} draws:")
for column, name in enumerate(("colour", "shape")):
    print(f"  {name:6} right in {controls[:, column].mean():.0f} % "
          f"({controls[:, column].min():.0f} to {controls[:, column].max():.0f})")  # fmt: skip

# %% [markdown]
# ## The project
#
# Take a question of your own, or one of these, and answer it on a page with two figures.
#
# **The bench** is the live page: `python visualize.py explore` writes
# `runs/visualize/explore.html`, one file in which this model runs. Drag the objects, change a
# colour, switch heads, MLPs and blocks off, take patches away or swap two, and see the prediction,
# what the head reads after each block, and every map follow; "One query, step by step" shows the
# numbers of a head. A guess is found there in a minute, and measured here.
#
# - *Size.* Where is it decided which of three objects is the main one? Repaint another object
#   than the main one, patch its patches' stream block by block, and see after which block its
#   colour does not count any more.
# - *Place.* Patch the position alone: the object's patches keep their contents and get the
#   positions of others.
# - *Words.* `rank_word_parts` does for the captioner what `rank_parts` does here: which head does
#   "left of" depend on, and does the colour word depend on others than the shape word?
# - *Photos.* Is there a colour head in DINOv2? Use 30 photos and more, and heads before the last
#   block, at patches instead of the class token.
# - *Back-ups.* For which pairs of heads is the loss of both larger than the sum of the losses?
#
# | | 0 points | 1 point | 2 points |
# | --- | --- | --- | --- |
# | question | "what do heads do" | one part, one effect | and a number predicted before |
# | measure | a picture | a number | beside guessing and the whole model |
# | replacement | not named | named | two compared, the difference explained |
# | control | none | as many parts at random | and a thing that should not change |
# | pictures | those of the search | others | others, with an interval (bootstrap) |
# | needed or enough | not told apart | one is shown | both are shown |
# | limits | none | what was not measured | and what would have proved you wrong |
#
# 10 of 14 points is a good project. A prediction that failed costs nothing when it was written
# down.

# %% [markdown]
# ## Questions
#
# 1. A head is silenced and nothing changes. Name two reasons that do not mean "the head does
#    nothing".
#
# <details><summary>Answer</summary>
#
# Another part does the same, and one of them is enough (silence both). Or what the head does was
# not asked for: other classes, other pictures, or tokens other than those that were silenced. A
# third: the measure is saturated, as accuracy is at 100 %; the log-probability would show it.
#
# </details>
#
# 2. A patched head moves the answer by 29 %, and the shares of all heads do not add up to 100 %.
#    Is something wrong?
#
# <details><summary>Answer</summary>
#
# No. Effects of single patches need not add up: parts come one after the other, the class token
# also carries what MLPs wrote, and softmax and norms are not linear. The three groups above added
# up to nearly 100 % because together they are *all* tokens after one block, and the model is
# nearly additive in them; nothing promised it.
#
# </details>
#
# 3. Why is the donor a twin with another paint, and not any other picture?
#
# <details><summary>Answer</summary>
#
# A patch carries over all that differs. From another picture comes its colour, its shape, its
# places and its ground, and the answer moves for any of these reasons. With a twin, what moves was
# the colour. Where no twin can be made, as for the shape here, two scores side by side do part of
# that work.
#
# </details>

# %% [markdown]
# ## What people get wrong
#
# - **Heads cut out of the projected output.** Slice $h$ of the *output* of attention is not head
#   $h$: the projection has mixed all heads into every channel. Shapes fit, no error comes, and
#   another thing is silenced (thought-anchors' issue 7, the code in nnsight's issue 525). The cut
#   belongs before the projection, as in exercise 10.1.
# - **Zeroed too much.** When a hook sets whole outputs to zero, biases go with them, and what is
#   blamed on heads is the loss of a constant (Automatic-Circuit-Discovery's pull request 52).
# - **Hooks that see nothing.** A fused kernel never makes the weights that the hook waits for. In
#   timm 1.0.31 `AttentionExtract` by hooks gives an empty dictionary with fused attention on, also
#   when it is switched off after the model was made; vit-explain's issue 23 is an index out of
#   range.
# - **Hooks that stay.** A notebook whose cell raised an error leaves its hook on the model, and
#   every later number is of a silenced model. A `with` removes it also then.
# - **One at a time.** Parts that stand in for each other all look useless. Language models repair
#   themselves in the same way (arXiv:2307.15771, arXiv:2211.00593).
# - **Found and confirmed on the same pictures.** The best of 12 heads looks good by chance
#   alone, the best of 144 even more. The table of knock-outs above is on scenes
#   that were not searched.

# %% [markdown]
# ## Sources
#
# - Are Sixteen Heads Really Better than One?, arXiv:1905.10650
# - Locating and Editing Factual Associations in GPT, arXiv:2202.05262 (activation patching)
# - A Mathematical Framework for Transformer Circuits, Elhage et al. 2021 (the stream as a sum)
# - interpreting GPT: the logit lens, nostalgebraist 2020
# - Interpretability in the Wild: a Circuit for Indirect Object Identification in GPT-2 small,
#   arXiv:2211.00593 (back-up heads)
# - The Hydra Effect: Emergent Self-repair in Language Model Computations, arXiv:2307.15771
# - How to use and interpret activation patching, arXiv:2404.15255
# - DINOv2: Learning Robust Visual Features without Supervision, arXiv:2304.07193
