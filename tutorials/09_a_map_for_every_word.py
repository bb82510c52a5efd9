# %% [markdown]
# # 9. A map for every word
#
# A captioner's cross-attention gives every word a map over the picture, and the maps are easy to
# believe. This lesson asks of each of them: which row is it, how much of it lies on the thing that
# the word means, and does the word need what the map shows? The built-in scenes know their objects,
# so all of it can be counted.
#
# Time: 40 minutes to read, half a minute to run, an hour with the exercises. Know before: lesson 8
# (the decoder, teacher forcing), pointing games (lesson 7).
#
# Shapes: B pictures, T words, H heads, M cells, (rows, cols) their grid. A map is a row of weights:
# row = the word that looks, cells = what is looked at.

# %% tags=["imports"]
import io
import math

import matplotlib.pyplot as plt
import torch
from einops import rearrange
from IPython.display import Image, Markdown
from PIL import ImageOps
from torch import Tensor

import minivit
from minivit.data.scenes.dataset import COLOURS, SHAPES, SIZES, TEST_SEED, make_scene
from minivit.explain.pointing import covered
from minivit.explain.words import word_relevance
from minivit.training.caption.grounding import ground
from minivit.training.caption.scene_truth import scene_scores
from minivit.viz import caption_figure
from minivit.viz.panels import overlay, show_photo, whole_box
from minivit.word_maps import decoder_input, relative_attention
from tutorials.checks import (
    check_hidden_drop,
    check_maps_of_words,
    check_need,
    check_relative,
    first_statement,
)

plt.rcParams["figure.dpi"] = 90
_ = torch.set_grad_enabled(False)
torch.set_num_threads(1)  # these tensors are small: a second thread costs more than it computes

# %% [markdown]
# ## One picture, one map a word
#
# `caption` writes a sentence and gives each word the map of the last decoder block, the mean over
# its heads. **Before you run it:** which words will look at the circle?

# %%
captioner = minivit.load_model("scenes_captioner")
tokenizer = captioner.tokenizer
scene = make_scene(TEST_SEED, 28)
caption = captioner.caption([scene.image])[0]


def as_picture(figure) -> Image:
    """The figure as the page shows it; minivit's figures are not registered with pyplot."""
    file = io.BytesIO()
    figure.savefig(file, format="jpeg", dpi=90, pil_kwargs={"quality": 88})
    return Image(file.getvalue(), format="jpeg")


torch.testing.assert_close(caption.attention.sum(dim=(1, 2)), torch.ones(len(caption.tokens)))
by_word = {word.text: word.attention for word in caption.words}
(circle,) = [thing for thing in scene.objects if thing.shape == "circle"]
circle_cells = covered(torch.from_numpy(circle.mask)[None], by_word["large"].shape)[0]
assert circle_cells.flatten()[by_word["large"].argmax()] > 0.5  # the circle is the small object
as_picture(caption_figure(scene.image, caption))

# %% [markdown]
# Three things meet the eye. Colours and shapes point at their objects. But so do words that mean
# nothing in the picture, "a" and "of"; and "large", which is said of the triangle, points at the
# small circle. And each panel has its own scale, so a map that is nearly flat looks as sharp as one
# that is not; the title gives the highest cell in multiples of a uniform map.
#
# ## Which row is a word's map?
#
# The decoder reads the start token and predicts the first word. Count the tokens of the caption
# from 0, without the start token: row i then reads token i − 1 and predicts token i:

# %%
lines = ["| row | reads | predicts |", "| --- | --- | --- |"]
read = ["\\<start>", *caption.tokens]
for row, (now, then) in enumerate(zip(read, [*caption.tokens, "\\<end>"], strict=True)):
    lines.append(f"| {row} | {now} | {then} |")
Markdown("\n".join(lines))

# %% [markdown]
# So a word has two rows: the one that *predicts* it, and the one that *reads* it, one later. Both
# are in use, and figures that do not say which row they draw cannot be compared.

# %% [markdown]
# ## Exercise 9.1: the maps of words
#
# You get the map of each row of the decoder, (T, rows, cols): map 0 is that of the row that reads
# the start token. You also get the words, each a list of the tokens that it is made of (`[[0, 1,
# 2], [3]]` for `snow ##man ##s melt`: token 0 is the first after the start token), and `reads`.
# Give one map a word, (words, rows, cols): the mean over its tokens of the maps of the rows that
# predict them, or with `reads` of those that read them.


# %% exercise="9.1" tags=["stub"]
def maps_of_words(rows: Tensor, words: list[list[int]], reads: bool) -> Tensor:
    """(T, rows, cols) -> (words, rows, cols)."""
    ...


check_maps_of_words(maps_of_words)

# %% [markdown] exercise="9.1" tags=["hint"]
# <details><summary>Hint</summary>
#
# Cut off the rows before that of token 0, of which there are `int(reads)`. Then token i has row i,
# and a list of numbers picks several rows at once.
#
# </details>

# %% [markdown] exercise="9.1" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def maps_of_words(rows: Tensor, words: list[list[int]], reads: bool) -> Tensor:
#     own = rows[int(reads) :]  # own[i] belongs to token i
#     return torch.stack([own[tokens].mean(dim=0) for tokens in words])
# ```
#
# </details>

# %% [markdown]
# `minivit.word_maps.describe` does this for `Captioner.caption`, with `align="predicts"` or
# `align="reads"`.
#
# Which of the two points at the object? Take 120 true captions, fed by teacher forcing, so that it
# is known which object each word means. A map hits when its strongest cell shows some of the
# object.

# %%
scenes = [make_scene(TEST_SEED, index) for index in range(120)]
figures = ground(captioner, scenes)
default = {(f.kind, f.align): f for f in figures if f.block == 1 and f.head is None}
lines = [
    "| word | row that predicts it | row that reads it | chance |",
    "| --- | --- | --- | --- |",
]
for kind in ("size", "colour", "shape"):
    one, two = default[kind, "predicts"], default[kind, "reads"]
    lines.append(f"| {kind} | {one.hits:.1%} | {two.hits:.1%} | {one.chance:.1%} |")
for kind, better, other in (
    ("size", "reads", "predicts"),
    ("colour", "reads", "predicts"),
    ("shape", "predicts", "reads"),
):
    assert default[kind, better].hits > default[kind, other].hits
Markdown("\n".join(lines))

# %% [markdown]
# Chance is the share of cells that show some of the object, which is what a cell taken at random
# hits; the object itself covers less.
#
# No alignment is best for all words. Caption words come as "a small red circle", and the rows form
# a chain: the row that reads "small" predicts "red", the row that reads "red" predicts "circle".
# The row that predicts the shape must look at the object; it is the same row that reads the colour.
# The row that reads the shape is done with the object and goes on.
#
# Follow the chain: how much of a map lies on the phrase's own object, step by step?

# %%
sentences = [[*tokenizer.encode(each.caption), tokenizer.end_id] for each in scenes]
tokens = decoder_input(sentences, tokenizer)  # (B, T)
memory = captioner.encode_photos([each.image for each in scenes])
logits, _, to_cells = captioner.decode(tokens, memory, need_weights=True)
grid, heads = memory.grid, captioner.config.num_heads
maps = torch.stack(
    [rearrange(block, "b h t (r c) -> b h t r c", r=grid[0]) for block in to_cells]
)  # 2 of (B, H, T, M) -> (2, B, H, T, rows, cols)
cover = [
    covered(torch.stack([torch.from_numpy(o.mask) for o in each.objects]), grid) for each in scenes
]  # (objects, rows, cols) each: the share of a cell that an object covers

phrases = []  # (scene, row that predicts "a", object)
for index, each in enumerate(scenes):
    words = each.caption.split()
    for place, thing in enumerate(each.word_objects):
        if thing is not None and words[place] == "a" and words[place + 1] in SIZES:
            phrases.append((index, place, thing))

steps = ("a", "size", "colour", "shape", "next word")
mass = torch.stack(
    [
        (maps[:, index, :, place : place + 5] * cover[index][thing]).sum(dim=(-2, -1))
        for index, place, thing in phrases
    ]
).mean(dim=0)  # phrases of (2, H, 5) -> (2, H, 5)
area = sum(float(cover[index][thing].mean()) for index, _, thing in phrases) / len(phrases)

figure, axes = plt.subplots(1, 2, figsize=(8.2, 3.2), sharey=True, layout="constrained")
for block, ax in enumerate(axes):
    for head in range(heads):
        ax.plot(mass[block, head], marker="o", markersize=4, label=f"head {head}")
    ax.plot(mass[block].mean(dim=0), color="black", linewidth=2, label="mean over heads")
    ax.axhline(area, color="grey", linestyle=":", label="uniform map")
    ax.set(title=f"decoder block {block}", xlabel="the row that predicts …", ylim=(0, 1))
    ax.set_xticks(range(5), steps)
axes[0].set_ylabel("share of the map on\nthe phrase's object")
axes[1].legend(fontsize=8, ncols=2)
plt.show()
last = mass[1]
print(f"{len(phrases)} phrases; the objects cover {area:.1%} of the picture")
for head in (0, 1, 3):
    numbers = ", ".join(
        f"{step} {share:.2f}" for step, share in zip(steps, last[head], strict=True)
    )
    print(f"last block, head {head}: {numbers}")
assert int(last[3].argmax()) == 3 and int(last[1].argmax()) == 2

# %% [markdown]
# The heads share the work. In the last block heads 0, 1 and 2 look at the object when the colour is
# to be said, head 3 when the shape is. Heads 0 and 2 look at it before, too, at "a" and at the
# size, though less: there it is not yet decided which object will be named, and often they point at
# another one (hence the hits of size words in the table above, and "large" in the first figure). A
# mean over heads blurs all of this: at the shape, head 3 is right and three heads look elsewhere.

# %% [markdown]
# ## To look at and to need
#
# A weight says how much of a cell's value is taken. It does not say that the word depends on it.
# Whether it depends can be tested: hide cells, and see whether the word becomes less likely. A
# memory has a mask for that, (B, M), True = a cell that may be looked at.

# %% [markdown]
# ## Exercise 9.2: hide cells
#
# You get the captioner, a memory of B pictures, tokens (B, T) with the start token first, and the
# cells to hide, (B, rows, cols) boolean, True = hidden. Give the drop of each word, (B, T − 1):
# log p(token i + 1) with all cells, minus the same with those cells hidden. Here the start token
# is token 0, as in lesson 8.


# %% exercise="9.2" tags=["stub"]
def hidden_drop(captioner, memory, tokens: Tensor, cells: Tensor) -> Tensor:
    """(B, T - 1): how much each word after the start token loses, in nats."""
    ...


check_hidden_drop(hidden_drop)

# %% [markdown] exercise="9.2" tags=["hint"]
# <details><summary>Hint</summary>
#
# `memory._replace(mask=…)` is the same memory with another mask, flat over cells. One pass of
# `captioner.decode(tokens[:, :-1], …)` for each memory, `log_softmax`, and `gather` of `tokens[:,
# 1:]`.
#
# </details>

# %% [markdown] exercise="9.2" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def hidden_drop(captioner, memory, tokens: Tensor, cells: Tensor) -> Tensor:
#     def log_p(seen) -> Tensor:
#         logits, _, _ = captioner.decode(tokens[:, :-1], seen)  # (B, T - 1, V)
#         return logits.log_softmax(dim=-1).gather(2, tokens[:, 1:, None])[..., 0]
#
#     hidden = memory._replace(mask=~cells.flatten(1))  # (B, rows, cols) -> (B, M)
#     return log_p(memory) - log_p(hidden)
# ```
#
# </details>


# %%
def log_p(tokens: Tensor, memory) -> Tensor:
    """(B, T - 1): log-probability of each token after the start token."""
    logits, _, _ = captioner.decode(tokens[:, :-1], memory)
    return logits.log_softmax(dim=-1).gather(2, tokens[:, 1:, None])[..., 0]


def drops(which: Tensor, cells: Tensor) -> Tensor:
    """(n, T - 1): drops of scenes `which` (n,) when cells (n, rows, cols) are hidden."""
    read = tokens[which]
    own = memory._replace(tokens=memory.tokens[which])
    hidden = own._replace(mask=~cells.flatten(1))  # (n, rows, cols) -> (n, M)
    return log_p(read, own) - log_p(read, hidden)


# %% [markdown]
# ## Why "a" looks at the object
#
# **Before you run it:** the object of a phrase is hidden from the decoder, all through the
# sentence. Which words of "a small red circle" become less likely?

# %%
which = torch.tensor([index for index, _, _ in phrases])
places = torch.tensor([place for _, place, _ in phrases])
own_cells = torch.stack([cover[index][thing] > 0 for index, _, thing in phrases])
lost = drops(which, own_cells)
lost = lost.gather(1, places[:, None] + torch.arange(4))  # (n, T - 1) -> (n, 4): a, size, …
all_objects = [each.sum(dim=0).clamp(max=1) for each in cover]
on_any = torch.stack(
    [
        (maps[1, index, 0, place : place + 4] * all_objects[index]).sum(dim=(-2, -1))
        for index, place, _ in phrases
    ]
).mean(dim=0)  # (4,): head 0 of the last block, on any object
lines = [
    "| the row that predicts … | head 0 of the last block: share on its object | on any object | "
    "drop with its object hidden (nats) |",
    "| --- | --- | --- | --- |",
]
for step in range(4):
    lines.append(
        f"| {steps[step]} | {last[0, step]:.2f} | {on_any[step]:.2f} | {lost[:, step].mean():.2f} |"
    )
objects_area = sum(float(each.mean()) for each in all_objects) / len(scenes)
lines.append(f"| (uniform map) | {area:.2f} | {objects_area:.2f} | |")
assert lost[:, 0].mean().abs() < 0.25 < 1 < lost[:, 2].mean()
assert on_any[1] > 3 * objects_area
Markdown("\n".join(lines))

# %% [markdown]
# The row that *reads* "a" is the row that predicts the size. There it is decided which object comes
# next, so it looks over the objects, all of them; once the colour is due, the choice is nearly
# made. Drawn with `align="reads"` that row is called "a", and "a" seems to look at things.
#
# But the row that *predicts* "a" looks at the objects too, and loses next to nothing without the
# one that is meant: "a" is certain after "left of" whatever the picture shows. A row is computed
# whether its word needs the picture or not, and later rows use the result. Nothing in training says
# that a word which needs no picture must not look at it. A map that points at an object is no
# evidence that the word is about it.

# %% [markdown]
# ## Sinks, and the mean map
#
# Weights of a row sum to 1. A head that has nothing to do at a word must put its weight somewhere.
# **Before you run it:** head 1 of the last block looks at objects when a colour is due. Where does
# it look when "a" is due?

# %%
idle = torch.stack([maps[1, index, :, place] for index, place, _ in phrases]).mean(dim=0)
busy = torch.stack([maps[1, index, :, place + 2] for index, place, _ in phrases]).mean(dim=0)
figure, axes = plt.subplots(2, 4, figsize=(8.2, 4.4), layout="constrained")
for row, (name, means) in enumerate((('predicts "a"', idle), ("predicts the colour", busy))):
    for head, ax in enumerate(axes[row]):
        shown = ax.imshow(means[head] * grid[0] * grid[1], vmin=0, vmax=6, cmap="magma")
        ax.set(xticks=[], yticks=[], title=f"head {head}")
    axes[row, 0].set_ylabel(name)
figure.colorbar(shown, ax=axes, label="mean weight, in multiples of a uniform map")
plt.show()

edge = torch.ones(grid, dtype=torch.bool)
edge[1:-1, 1:-1] = False
corners = torch.zeros(grid, dtype=torch.bool)
corners[::11, ::11] = True
print(f"edge: {edge.float().mean():.0%} of the cells, corners: {corners.float().mean():.1%}")
for name, means in (('predicts "a"', idle), ("predicts the colour", busy)):
    print(f"head 1, {name}: {means[1][edge].sum():.0%} of the weight on the edge, "
          f"{means[1][corners].sum():.1%} on the four corners")  # fmt: skip
assert idle[1][edge].sum() > 0.5 > 0.2 > busy[1][edge].sum()

# %% [markdown]
# These means are over all phrases and all pictures, so a cell that is bright in them is bright
# whatever the picture shows: a *sink*. Head 1 puts most of its weight on the edge while it waits.
# Are the sinks needed? Hide them.

# %%
objects_anywhere = torch.stack(all_objects) > 0  # (B, rows, cols)
background = ~objects_anywhere
everyone = torch.arange(len(scenes))
real = tokens[:, 1:] != tokenizer.pad_id
sinks = edge & background
generator = torch.Generator().manual_seed(9)
# As many cells of each picture as it has sinks on the edge, drawn from the rest of its background.
order = torch.rand(background.shape, generator=generator).masked_fill(~background | edge, 2.0)
rank = order.flatten(1).argsort(dim=1).argsort(dim=1).view(background.shape)  # 0 is drawn first
elsewhere = (rank < sinks.sum(dim=(1, 2))[:, None, None]) & background & ~edge  # (B, rows, cols)
assert sinks.sum() - elsewhere.sum() < len(scenes)  # a full picture has fewer to draw from
tests = {
    "the four corners": corners & background,
    "the whole edge": sinks,
    "as many other cells of background": elsewhere,
    "all background": background,
    "all objects": objects_anywhere,
}
lines = ["| hidden | cells | mean change of log p (nats) | words that lose more than 0.1 |"]
lines.append("| --- | --- | --- | --- |")
changes = {}
for name, cells in tests.items():
    change = drops(everyone, cells)[real]
    changes[name] = float(change.abs().mean())
    lines.append(
        f"| {name} | {cells.float().sum(dim=(1, 2)).mean():.0f} | {changes[name]:.4f} | "
        f"{(change > 0.1).float().mean():.1%} |"
    )
assert changes["the four corners"] < 0.01 and changes["all objects"] > 1
Markdown("\n".join(lines))

# %% [markdown]
# Almost nothing happens without the sinks: the weight goes elsewhere. So much of what a raw map
# shows, the mean over heads above all, is about no word at all.

# %% [markdown]
# ## Exercise 9.3: relative maps
#
# An old remedy divides each word's map, cell by cell, by the mean map over the words of its
# sentence: 1 then means "as much as the average word", and a cell that all words look at drops out.
# Write it for maps (words, rows, cols).


# %% exercise="9.3" tags=["stub"]
def relative(maps: Tensor) -> Tensor:
    """(words, rows, cols) -> (words, rows, cols), 1 where a word looks as the average word does."""
    ...


check_relative(relative)

# %% [markdown] exercise="9.3" tags=["hint"]
# <details><summary>Hint</summary>
#
# Over which dimension is the mean, and what shape does it have? Division broadcasts.
#
# </details>

# %% [markdown] exercise="9.3" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def relative(maps: Tensor) -> Tensor:
#     return maps / maps.mean(dim=0)
# ```
#
# </details>

# %% [markdown]
# `minivit.word_maps.relative_attention` is this. **Before you run it:** will the strongest cell of
# a relative map hit the object more often, or less?

# %%
kinds = {"colour": tuple(COLOURS), "shape": SHAPES}


def hits(attention: Tensor, kind: str, *, divide: bool) -> float:
    """Share of words whose strongest cell shows some of their object.

    attention: (B, T, rows, cols), the rows that predict.
    """
    hit = []
    for index, each in enumerate(scenes):
        own = attention[index, : len(each.word_objects)]  # (words, rows, cols)
        own = relative_attention(own) if divide else own
        for place, (word, thing) in enumerate(
            zip(each.caption.split(), each.word_objects, strict=True)
        ):
            if thing is not None and word in kinds[kind]:
                hit.append(bool(cover[index][thing].flatten()[own[place].argmax()] > 0))
    return sum(hit) / len(hit)


table = {}
lines = ["| map | word | raw | relative |", "| --- | --- | --- | --- |"]
for name, attention in (
    ("last block, mean over heads", maps[1].mean(dim=1)),
    ("last block, head 1", maps[1, :, 1]),
    ("last block, head 3", maps[1, :, 3]),
):
    for kind in kinds:
        pair = table[name, kind] = [hits(attention, kind, divide=d) for d in (False, True)]
        lines.append(f"| {name} | {kind} | {pair[0]:.1%} | {pair[1]:.1%} |")
raw, divided = table["last block, mean over heads", "shape"]
assert divided < raw - 0.3
raw, divided = table["last block, head 1", "colour"]
assert divided > raw
Markdown("\n".join(lines))

# %% [markdown]
# Division helps head 1, which looks at sinks while it waits: the mean map of its sentence *is* the
# sinks (and in part the objects). It ruins the mean over heads at shapes. There all words look at
# the objects, as the last section showed for "a"; so the mean map of the sentence is a map of the
# objects, and what is divided away is the answer. What remains is the place where this word looks
# and others do not, however faintly.

# %%
relative_maps = relative_attention(caption.attention)
word = [w.text for w in caption.words].index("circle")
figure, axes = plt.subplots(1, 3, figsize=(7.6, 2.9), layout="constrained")
box = whole_box(scene.image)
mean_map = caption.attention.mean(dim=0)
for ax, (name, unit, shown) in zip(
    axes,
    (
        ('"circle", raw', "weight", caption.attention[word]),
        ("mean over the words", "weight", mean_map),
        ('"circle", relative', "times the average word", relative_maps[word]),
    ),
    strict=True,
):
    show_photo(ax, scene.image, box, grey=True)
    bar = figure.colorbar(overlay(ax, shown, box), ax=ax, shrink=0.75)
    bar.ax.tick_params(labelsize=7)
    bar.set_label(unit, fontsize=8)
    ax.set_aspect("equal")
    ax.set_title(name, fontsize=9)
plt.show()

# %% [markdown]
# A relative map answers another question than a raw one: not "where does this word look" but "where
# does it look more than the others do". Both are worth asking; their pictures must not be mixed up.

# %% [markdown]
# ## The right sentence with a wrong map
#
# Now look for cases that would fool a reader: the caption is true as a whole, the word is certain
# (p > 0.95), and the strongest cell of its map (last block, mean over heads, what `caption` gives)
# does not even touch its object. The code searches; nobody picks.

# %%
many = [make_scene(TEST_SEED, index) for index in range(200)]
captions = captioner.caption([each.image for each in many])


def meant(words: list[str], place: int, scene) -> int | None:
    """Index of the object that a colour or shape word means: no two have both in common."""
    if words[place] in SHAPES:
        pair = (words[place - 1], words[place])
    elif words[place] in COLOURS:
        pair = (words[place], words[place + 1])
    else:
        return None
    pairs = [(thing.colour, thing.shape) for thing in scene.objects]
    return pairs.index(pair) if pair in pairs else None


misses, certain, unsure, choices = [], 0, 0, 0
for index, (each, own) in enumerate(zip(many, captions, strict=True)):
    if scene_scores([own.text], [each])["whole"] < 1:
        continue
    texts = [w.text for w in own.words]
    for place, w in enumerate(own.words):
        thing = meant(texts, place, each)
        if thing is None:
            continue
        mask = torch.from_numpy(each.objects[thing].mask)[None]
        share = covered(mask, grid)[0]  # (rows, cols)
        miss = not bool(share.flatten()[w.attention.argmax()] > 0)
        sure = w.log_prob > math.log(0.95)
        certain += sure
        unsure += miss and not sure
        small = [o for o in each.objects if o.size == "small"]
        choice = texts[place] in COLOURS and texts[place - 1] == "small" and len(small) == 2
        choices += miss and not sure and choice
        if miss and sure:
            weight = float((w.attention * share).sum() / share.mean())
            misses.append((weight, index, place, thing))
misses.sort()
print(f"{certain} certain colours and shapes in true captions; {len(misses)} of their maps miss")
print(f"{unsure} maps of words that were not certain miss too; {choices} of them are of a colour")
print('after "small" in a scene of two small objects')
assert 0 < len(misses) < certain / 100 and choices > unsure / 2

# %%
weight, index, place, thing = misses[0]
wrong, its_caption = many[index], captions[index]
word = its_caption.words[place]
share = covered(torch.from_numpy(wrong.objects[thing].mask)[None], grid)[0]
its_memory = captioner.encode_photos([wrong.image])
its_tokens = decoder_input([[*its_caption.token_ids, tokenizer.end_id]], tokenizer)
image = captioner.preprocess(wrong.image)[None]
relevance = word_relevance(captioner, image, its_tokens, words=[place])[0, 0]
_, _, its_cells = captioner.decode(its_tokens, its_memory, need_weights=True)
first_block = its_cells[0][0, :, place].mean(dim=0).view(grid)  # (H, M) -> (M,) -> (rows, cols)
head_3 = its_cells[1][0, 3, place].view(grid)  # (M,) -> (rows, cols)


def its_drop(cells: Tensor) -> float:
    hidden = its_memory._replace(mask=~cells.flatten()[None])  # (rows, cols) -> (1, M)
    before, after = log_p(its_tokens, its_memory), log_p(its_tokens, hidden)
    return float((before - after)[0, place])


on_object = share > 0
count = int(on_object.sum())
strongest = torch.zeros(grid, dtype=torch.bool)
strongest.view(-1)[word.attention.flatten().topk(count).indices] = True
drop_object, drop_map = its_drop(on_object), its_drop(strongest & ~on_object)

panels = [
    ("last block, mean over heads", word.attention),
    ("last block, head 3", head_3),
    ("first block, mean over heads", first_block),
    ("relevance (gradients)", relevance),
]
figure, axes = plt.subplots(1, 5, figsize=(10.0, 2.5), layout="constrained")
box = whole_box(wrong.image)
show_photo(axes[0], wrong.image, box)
axes[0].set_aspect("equal")
axes[0].set_title("the scene", fontsize=8)
for ax, (name, shown) in zip(axes[1:], panels, strict=True):
    show_photo(ax, wrong.image, box, grey=True)
    overlay(ax, shown, box)
    on = float((shown * share).sum() / shown.sum())
    ax.set_aspect("equal")
    ax.set_title(f"{name}\n{on:.0%} on the object", fontsize=8)
plt.show()
print("the caption:", its_caption.text)
print(f'the word: "{word.text}", p = {math.exp(word.log_prob):.3f}; '
      f"its object covers {share.mean():.1%} of the picture")  # fmt: skip
row, col = divmod(int(word.attention.argmax()), grid[1])
print(f"the strongest cell of its map: row {row}, column {col} of {grid[0]} × {grid[1]}")
print(f"hidden: the {count} cells of the object: it loses {drop_object:.2f} nats")
print(f"hidden: the {count} strongest cells of the map, where not on the object: {drop_map:.2f}")
assert drop_object > 1 > 0.1 > drop_map and edge[row, col]

# %% [markdown]
# Such maps are rare: among certain words fewer than one in a hundred misses its object. In this one
# the sentence is right, the word is certain, and the map that one would print points at the edge: a
# sink outweighs the object. What is wrong is not the captioner but the map: the word needs the
# cells of its object, and nothing of what the map shows. The work was done by one head, or one
# block earlier, and the mean over the heads of the last block does not show it.
#
# The maps of words that were *not* certain miss for a better reason. They are mostly colours after
# "a small" where two objects are small: at that row both colours are likely, both objects are
# looked at, and the one that was not named can have the strongest cell.

# %% [markdown]
# ## Relations: does "left of" look at both?
#
# A word of place is about two objects. Scenes of three have a built-in control: the third object,
# which the statement is not about. `first_statement` (from the checks of this lesson) finds
# captions that begin with an object and a word of place, "a red ring is left of a …" or "a red ring
# is next to a …", and names the row that predicts this word ("left", "next"), the subject, the
# other object and the third.
#
# **Before you run it:** rank the three by how much the row looks at them.

# %%
stated = [
    (index, statement)
    for index, each in enumerate(scenes)
    if (statement := first_statement(each)) is not None
]
roles = ("subject", "other", "third")
looks = torch.stack(
    [
        torch.stack(
            [
                (maps[1, index, :, s.row].mean(dim=0) * part).sum() / part.mean()
                for part in (cover[index][getattr(s, role)] for role in roles)
            ]
        )
        for index, s in stated
    ]
)  # (statements, 3): multiples of a uniform map
print(f"{len(stated)} statements; last block, mean over heads, in multiples of a uniform map:")
for role, number in zip(roles, looks.mean(dim=0), strict=True):
    print(f"  {role:8} {number:.1f}")
assert (looks.mean(dim=0) > 1.5).all()

# %% [markdown]
# It looks at both, and at the third as well. So the map alone cannot say what the word of place is
# about.

# %% [markdown]
# ## Exercise 9.4: what does it need?
#
# Measure it. Take the scenes 0 to 99 of `TEST_SEED` for which `first_statement` gives a statement,
# with their true captions (the cells before and after this exercise take 0 to 119). Hide all cells
# that show some of the subject (`covered(…) > 0`), and take the drop of log p of the word of place,
# which the row `statement.row` predicts; the mean over the statements. The same for the other and
# for the third object: `{"subject": …, "other": …, "third": …}`, in nats. Which of the three do you
# expect not to be needed?

# %% exercise="9.4" tags=["stub"]
need = ...

check_need(need)

# %% [markdown] exercise="9.4" tags=["hint"]
# <details><summary>Hint</summary>
#
# Encode only those scenes. For each role one batch of masks: `covered` of the objects' masks,
# stacked, `> 0`, then your `hidden_drop` of exercise 9.2. Row r of the drops belongs to token r +
# 1, which is the word that row r predicts: pick `[statement number, statement.row]`.
#
# </details>

# %% [markdown] exercise="9.4" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# from minivit.data.scenes.dataset import TEST_SEED, make_scene
# from minivit.explain.pointing import covered
# from minivit.word_maps import decoder_input
# from tutorials.checks import first_statement
#
# captioner = minivit.load_model("scenes_captioner")
# tokenizer = captioner.tokenizer
# hundred = [make_scene(TEST_SEED, index) for index in range(100)]
# chosen = [(scene, s) for scene in hundred if (s := first_statement(scene)) is not None]
# true = [[*tokenizer.encode(scene.caption), tokenizer.end_id] for scene, _ in chosen]
# read = decoder_input(true, tokenizer)  # (B, T)
# place = torch.tensor([s.row for _, s in chosen])
#
# def log_p_of_place(seen) -> Tensor:
#     with torch.no_grad():
#         log_p = captioner.decode(read[:, :-1], seen)[0].log_softmax(dim=-1)
#     log_p = log_p.gather(2, read[:, 1:, None])[..., 0]  # (B, T - 1)
#     return log_p[torch.arange(len(read)), place]  # (B,)
#
# with torch.no_grad():
#     seen = captioner.encode_photos([scene.image for scene, _ in chosen])
# need = {}
# for role in ("subject", "other", "third"):
#     masks = [torch.from_numpy(scene.objects[getattr(s, role)].mask) for scene, s in chosen]
#     cells = covered(torch.stack(masks), seen.grid) > 0  # (B, rows, cols)
#     hidden = seen._replace(mask=~cells.flatten(1))
#     need[role] = float((log_p_of_place(seen) - log_p_of_place(hidden)).mean())
# ```
#
# Hiding the third object costs nothing; the mean is even below 0, mostly because of two scenes.
# Hiding one of the others costs 0.9 and 1.6 nats in the mean, which comes from a minority of about
# ten scenes: the medians are 0.00 and 0.10, so in the median scene hiding costs almost nothing. One
# cause: cells beside an object know of it too, since the blocks before have mixed them. Hidden
# cells are not a hidden object.
#
# </details>

# %%
index_of = torch.tensor([index for index, _ in stated])
row_of = torch.tensor([statement.row for _, statement in stated])
needed = torch.stack(
    [
        drops(
            index_of,
            torch.stack([cover[index][getattr(s, role)] > 0 for index, s in stated]),
        )[torch.arange(len(stated)), row_of]
        for role in roles
    ],
    dim=1,
)  # (statements, 3)
figure, axes = plt.subplots(1, 2, figsize=(7.4, 2.9), layout="constrained")
axes[0].bar(roles, looks.mean(dim=0), color="#3b6fb6")
axes[0].axhline(1, color="grey", linestyle=":")
axes[0].set(title="looked at", ylabel="multiples of a uniform map")
axes[1].bar(roles, needed.mean(dim=0), color="#e3a795", label="mean")
for place in range(len(roles)):
    beside = place + torch.linspace(-0.3, 0.3, len(needed))
    axes[1].plot(beside, needed[:, place], ".", color="#7a2c18", markersize=3)
axes[1].plot([], [], ".", color="#7a2c18", markersize=3, label="a statement")
axes[1].axhline(0, color="grey", linewidth=0.8)
axes[1].set(title="what hiding costs", ylabel="drop when hidden (nats)")
axes[1].legend(fontsize=7)
plt.show()
subject, other, third = needed.mean(dim=0).tolist()
print(f"drop of log p: subject {subject:.2f}, other {other:.2f}, third {third:.2f}")
medians = needed.median(dim=0).values
costs = (needed > 0.1).float().mean(dim=0)
print("medians:", ", ".join(f"{number:.3f}" for number in medians))
print("statements that lose more than 0.1:", ", ".join(f"{share:.0%}" for share in costs))
assert min(subject, other) > 0.5 > 0.1 > third
assert medians.max() < 0.15 and (costs[:2] < 0.5).all()
ten = needed[:, :2].topk(10, dim=0).values.sum(dim=0) / needed[:, :2].sum(dim=0)  # (2,)
assert (ten > 0.8).all() and costs[2] < 0.1

# %% [markdown]
# The answer, then: the word of place *looks* at all three. Hiding one of the two that it is about
# costs something in a minority of scenes, and the means come from these: ten statements make more
# than four fifths of each. In the median scene hiding costs almost nothing. Hiding the third costs
# hardly ever anything. So hiding tells the two from the third, and does not show that every such
# word needs both: cells nearby may know of the object as well. The sharpest test leaves the maps
# aside altogether. Mirror the picture, keep the sentence: if the word comes from where the
# objects lie, "left" must become what "right" was.

# %%
pairs = []
for index, each in enumerate(many):
    words = each.caption.split()
    sideways = [place for place, w in enumerate(words) if w in ("left", "right")]
    if len(each.objects) == 2 and sideways and not {"upper", "lower"} & set(words):
        pairs.append((index, sideways[0], words[sideways[0]]))
chosen = [many[index] for index, _, _ in pairs]
read = decoder_input([tokenizer.encode(each.caption) for each in chosen], tokenizer)
opposite = {"left": "right", "right": "left"}
chances = {}
for name, pictures in (
    ("as it is", [each.image for each in chosen]),
    ("mirrored", [ImageOps.mirror(each.image) for each in chosen]),
):
    p = captioner.decode(read, captioner.encode_photos(pictures))[0].softmax(dim=-1)
    chances[name] = [
        sum(
            float(p[n, place, tokenizer.encode(turn(word))[0]])
            for n, (_, place, word) in enumerate(pairs)
        )
        / len(pairs)
        for turn in (str, opposite.get)
    ]
    said, other = chances[name]
    print(f"{name}: p(the true word) {said:.2f}, p(the opposite) {other:.2f}")
print(f"({len(pairs)} scenes of two objects whose caption says left or right)")
assert abs(chances["as it is"][0] - chances["mirrored"][1]) < 0.1
assert chances["as it is"][0] > 3 * chances["mirrored"][0]

# %% [markdown]
# The probabilities change places. The captioner's "left" is about where things lie, and it took
# three experiments to know: the map (looks at too much), hiding (tells two from the third, in a
# minority of scenes), mirroring (the word turns). Of the three the map is the weakest.

# %% [markdown]
# ## Questions
#
# **1.** A paper shows that "the" attends to the dog in "the dog runs", and concludes that the model
# has understood articles. Which two other explanations would you check first?
#
# <details><summary>Answer</summary>
#
# The row may be that which *reads* "the": then it predicts "dog", and of course it looks at the
# dog. And the dog may be what all words look at: compare with the mean map of the sentence, and
# hide the dog to see whether "the" becomes less likely.
#
# </details>
#
# **2.** Head 1 puts most of its weight on the edge, and hiding the edge changes nothing. Why does a
# network learn such a thing instead of weights of 0?
#
# <details><summary>Answer</summary>
#
# Softmax has no way to give nothing: weights of a row sum to 1. A head with nothing to add can put
# its weight on cells whose values do little, or whose sum the next layers have learned to expect.
# Cells that hold no object in most pictures are good for that. Registers and other sinks are the
# same thing in larger models.
#
# </details>
#
# **3.** Hiding the object's cells lowers log p by several nats in one scene and by almost nothing
# in another, though both captions name it rightly. Does the word in the second scene not come from
# the picture?
#
# <details><summary>Answer</summary>
#
# It can come from neighbouring cells: the ViT and the encoder have mixed cells before the decoder
# sees them, so a cell beside the object knows of it. Hiding in the memory removes what these cells
# hold, not the object. To remove the object, change the picture.
#
# </details>

# %% [markdown]
# ## What people get wrong
#
# - **Maps one word late.** "The attention maps usually come after the letter": a reader of an OCR
#   model (emedvedev/attention-ocr, issue 68) may have drawn rows that read. A related question
#   stands in zjysteven/VLM-Visualizer, issue 7: there is one token more than there are rows, which
#   end is to be dropped? The maintainer's answer: the first token, `<s>`, has no map. Row i
#   predicts what comes next; say which alignment a figure has.
# - **The last block because it is the last.** For a translation model the first two blocks aligned
#   words best, which was reported as a fault (huggingface/transformers, issue 22538, 2023). Which
#   block and head show what is to be measured; here it differs between colours and shapes.
# - **The mean over heads.** In kdexd/virtex, issue 26, the mean over the heads lies in the middle
#   of most pictures. Means over heads show what heads have in common, sinks first; whether that is
#   the cause there is a guess.
# - **All words have the same map.** DeepRNN/image_captioning, issues 3 and 32: maps of different
#   words differ by 1e-9 or less. Then the weights drawn are not those that the words are made with
#   (a cached array, another mode of the model), or the decoder does not use the picture; exchange
#   the picture (exercise 8.5) before you draw.
# - **A correct caption taken as proof of the map**, and a good map as proof of the caption. Above,
#   both fail.
# - **Each panel on its own scale.** A map that is uniform to 10 % becomes as colourful as one that
#   points. Give the maximum in multiples of a uniform map, or one scale for all.

# %% [markdown]
# ## Sources
#
# - Xu et al. 2015, "Show, Attend and Tell", arXiv:1502.03044: a map for every word
# - Zhang et al. 2016, "Top-down Neural Attention by Excitation Backprop", arXiv:1608.00507: the
#   pointing game
# - Jain and Wallace 2019, "Attention is not Explanation", arXiv:1902.10186
# - Kobayashi et al. 2020, "Attention is Not Only a Weight", arXiv:2004.10102: weights and what they
#   weigh
# - Xiao et al. 2023, "Efficient Streaming Language Models with Attention Sinks", arXiv:2309.17453
# - Darcet et al. 2023, "Vision Transformers Need Registers", arXiv:2309.16588
# - Chefer, Gur and Wolf 2021, "Generic Attention-model Explainability for Interpreting Bi-Modal and
#   Encoder-Decoder Transformers", arXiv:2103.15679: the relevance map
# - Sun et al. 2020, "Understanding Image Captioning Models beyond Visualizing Attention",
#   arXiv:2001.01037
# - Code: `minivit/word_maps.py`, `minivit/explain/words.py`,
#   `minivit/training/caption/grounding.py`
