# %% [markdown]
# # 3. Attention by hand
#
# One equation carries information from one patch of a picture to another (arXiv:1706.03762,
# equation 1):
#
# $$\mathrm{Attention}(Q, K, V) = \mathrm{softmax}\left(\frac{QK^\top}{\sqrt d}\right) V$$
#
# You write it, see why each part is there, break it on purpose, mask it, split it into heads, and
# run it without ever storing its weights. At the end it is `minivit.MultiHeadAttention`, number
# for number.
#
# **Reading:** an hour, with the exercises. **Running:** 15 seconds. **Before:** lesson 1 (a picture
# is a list of tokens), matrix products, and what a derivative is.
#
# Letters, as in the library: B pictures, N tokens that look (queries), M tokens that are looked
# at (keys), H heads, d channels of a head, D = H·d channels of a token.

# %% tags=["imports"]
import math
import os
import statistics
import time

os.environ["KINETO_LOG_LEVEL"] = "99"  # torch's profiler (section 7) would log to this page

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from einops import rearrange
from matplotlib.axes import Axes
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import minivit
from minivit.attention import causal_mask, plain_attention, scaled_dot_product_attention
from minivit.data.scenes.dataset import TEST_SEED, make_scene
from minivit.viz import panels
from tutorials.checks import (
    check_attention,
    check_blockwise_attention,
    check_divisor,
    check_masked_weights,
    check_multi_head,
)
from tutorials.weights import real_or_shipped

plt.rcParams["figure.dpi"] = 90
TORCH = torch.__version__.split("+")[0]
torch.manual_seed(0)
_ = torch.set_grad_enabled(False)  # no gradients, but where a cell says so

# %% [markdown]
# ## 1. A weighted mean
#
# Attention is a look-up with shares. A **query** says what is wanted. Each token has a
# **key**, which says what it offers, and a **value**, which is what it hands over. The answer is
# not the value of the best key but a mean of all values, in which better keys weigh more. Four
# steps:
#
# 1. **Similarity**: the dot product of the query with each key. $s_j = q \cdot k_j$
# 2. **Scale**: divide by $\sqrt d$. Section 3 says why.
# 3. **Softmax**: make the numbers positive and their sum 1.
#    $w_j = e^{s_j / \sqrt d} / \sum_i e^{s_i / \sqrt d}$
# 4. **Mix**: the mean of the values with these weights. $o = \sum_j w_j v_j$
#
# Here are four tokens with d = 4, whose values are colours (red, green, blue parts). The query is
# equal to the first key.
#
# **Before you run it:** the scores of the first two tokens will be 8 and 4, and √d is 2. How many
# times as much weight does the first get?

# %%
query = torch.tensor([2.0, 0.0, 0.0, 2.0])  # (d,)
keys = torch.tensor(  # (M, d)
    [[2.0, 0.0, 0.0, 2.0], [2.0, 0.0, 1.0, 0.0], [0.0, 2.0, 2.0, 0.0], [-2.0, 1.0, 0.0, 0.0]]
)
values = torch.tensor(  # (M, 3)
    [[0.85, 0.15, 0.15], [1.00, 0.75, 0.10], [0.15, 0.35, 0.85], [0.15, 0.60, 0.25]]
)

scores = keys @ query  # 1. similarity: (M, d) x (d,) -> (M,)
scaled = scores / math.sqrt(len(query))  # 2. scale
weights = scaled.exp() / scaled.exp().sum()  # 3. softmax
mixed = weights @ values  # 4. mix: (M,) x (M, 3) -> (3,)

print("scores   ", scores.tolist())
print("scaled   ", scaled.tolist())
print("weights  ", [round(weight, 4) for weight in weights.tolist()])
print(f"first / second = {weights[0] / weights[1]:.2f} = e^(4 - 2)")
assert torch.allclose(weights[0] / weights[1], torch.tensor(math.e**2))
assert torch.tensor(89.0).exp().isinf()  # larger than any float32

figure, (left, right) = plt.subplots(
    1, 2, figsize=(6.4, 2.4), layout="constrained", width_ratios=[4, 1]
)
bars = left.bar(range(4), weights.tolist(), color=values.tolist(), edgecolor="black", linewidth=0.6)
left.bar_label(bars, [f"{weight:.3f}" for weight in weights.tolist()], fontsize=8)
left.set(
    xticks=range(4),
    xlabel="token",
    ylabel="weight",
    ylim=(0, 1.08),
    title="weights, by colour of the value",
)
right.imshow(mixed[None, None])
_ = right.set(xticks=[], yticks=[], title="the mix")

# %% [markdown]
# A difference of 2 in the scaled scores is a factor of e² = 7.4 in the weights: softmax looks at
# differences, never at the numbers themselves. The last token's weight is small but not 0: no key
# is ever left out entirely.
#
# Since only differences count, the row's largest score may be subtracted first. `softmax` always
# does that: its largest term is then e⁰ = 1, where e⁸⁹ alone is too large for a float32. Trained
# models have scores in the hundreds, so the plain formula of the cell above is for small numbers.
#
# ## Exercise 3.1: the equation
# Now for all queries, all heads and all pictures at once. Write `dot_attention`, which gives the
# output and the weights, in this order. `@` multiplies the last two dimensions only, so the same
# lines work for one head and for all. In the matrix of weights the row says who looks, the column
# what is looked at. The scores may be in the hundreds.


# %% exercise="3.1" tags=["stub"]
def dot_attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """softmax(Q Kᵀ / √d) V, and the weights.

    q (B, H, N, d), k (B, H, M, d), v (B, H, M, d) -> output (B, H, N, d), weights (B, H, N, M)
    """
    ...


check_attention(dot_attention)

# %% [markdown] exercise="3.1" tags=["hint"]
# <details><summary>Hint</summary>
#
# `k.transpose(-2, -1)` is (B, H, d, M). d is the last dimension of q. Each query shares out a
# weight of 1 among the keys: which dimension of (B, H, N, M) do the keys stand in?
#
# </details>

# %% [markdown] exercise="3.1" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def dot_attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
#     scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # -> (B, H, N, M)
#     weights = scores.softmax(dim=-1)  # over the keys
#     return weights @ v, weights  # (B, H, N, M) x (B, H, M, d) -> (B, H, N, d)
# ```
#
# </details>

# %% [markdown]
# ## 2. Version 1: one head on a picture
#
# Where do queries, keys and values come from? From the same tokens, by three learned matrices:
#
# $$q_i = W_Q x_i + b_Q \qquad k_j = W_K x_j + b_K \qquad v_j = W_V x_j + b_V$$
#
# Two different matrices for q and k let looking and being looked at be two different things: a
# patch of an eye may look for the other eye, without the other eye having to look like what it
# looks for.
#
# Here is a trained model with a picture. We run its first blocks, and stop where one block's
# attention begins. What follows uses these tokens `x` throughout. (`norm1` brings each token to
# mean 0 and deviation 1; lesson 4 is about it.)

# %%
model, real = real_or_shipped()
if real:
    picture = minivit.open_image("photos/cat.jpg")
    block, head, patch = 6, 5, (5, 5)  # a patch on the left eye
else:
    scene = make_scene(TEST_SEED, 3, image_size=96)
    picture = scene.image
    block, head = 1, 2
    patch = tuple(int(pixel // 8) for pixel in scene.objects[0].centre)  # on the main object

images = model.preprocess(picture)[None]  # (1, 3, height, width)
tokens = model.embed(images)  # (1, 3, height, width) -> (1, N, D)
for earlier in model.blocks[:block]:
    tokens, _ = earlier(tokens)
x = model.blocks[block].norm1(tokens)  # (1, N, D)
attn = model.blocks[block].attn

rows, cols = model.patch_embed.grid_for(*images.shape[-2:])
N, D, H = x.shape[1], x.shape[2], attn.num_heads
d = D // H
looks = model.num_prefix_tokens + patch[0] * cols + patch[1]  # the number of the patch's token
box = model.preprocess.crop_box(*picture.size)
print(
    f"block {block}: N = {N} tokens: {model.num_prefix_tokens} class token and "
    f"{rows} x {cols} patches"
)
print(f"D = {D} channels = H {H} heads x d {d} channels")

# %% [markdown]
# Version 1 is the equation for one head. The model keeps W_Q, W_K and W_V of all heads below each
# other in one matrix, `attn.qkv.weight` (3·D, D); the rows of one head are a slice of it.
#
# **Before you run it:** the query is the patch in the white frame. Which patches will be most
# similar to it, and how will the weights change without √d?


# %%
def attention_v1(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """One head: (N, d), (M, d), (M, d) -> output (N, d) and weights (N, M)."""
    scores = q @ k.T / math.sqrt(q.shape[-1])  # (N, d) x (d, M) -> (N, M)
    weights = scores.softmax(dim=-1)  # over the keys: each row sums to 1
    return weights @ v, weights  # (N, M) x (M, d) -> (N, d)


def project(part: int, head: int) -> Tensor:
    """Queries (part 0), keys (1) or values (2) of one head: (N, D) -> (N, d)."""
    place = slice(part * D + head * d, part * D + (head + 1) * d)
    return x[0] @ attn.qkv.weight[place].T + attn.qkv.bias[place]


def draw(
    axes: Axes, row: Tensor, title: str, *, photo: bool = True, bar: bool = True, **scale: str
) -> None:
    """What one query has for each token (N,), as a map of the patches."""
    if photo:
        panels.show_photo(axes, picture, box, grey=True)
    patches = row[model.num_prefix_tokens :].view(rows, cols)  # (N,) -> (rows, cols)
    painted = panels.overlay(axes, patches, box, **scale)
    if not photo:
        painted.set_alpha(1)  # nothing lies below
    panels.outline(axes, panels.cell_box(box, (rows, cols), patch))
    axes.set(xticks=[], yticks=[], box_aspect=1)
    axes.set_title(title, fontsize=9)
    if bar:
        beside = axes.figure.colorbar(painted, ax=axes, shrink=0.75).ax
        beside.set_facecolor("0.5")  # the colours as they look over a photo
        beside.tick_params(labelsize=7)


q, k, v = (project(part, head) for part in range(3))  # (N, d) each
output, weights = attention_v1(q, k, v)
scores = q @ k.T  # (N, M), not scaled
unscaled = scores.softmax(dim=-1)

figure, axes = plt.subplots(1, 4, figsize=(10.5, 2.5), layout="constrained")
panels.show_photo(axes[0], picture, box)
panels.outline(axes[0], panels.cell_box(box, (rows, cols), patch))
axes[0].set_box_aspect(1)
axes[0].set_title("framed: the patch that looks", fontsize=9)
draw(axes[1], scores[looks] / math.sqrt(d), "scores q·k/√d", scale="signed")
draw(axes[2], weights[looks], "weights, with √d")
draw(axes[3], unscaled[looks], "weights, without √d")

for name, row in (("with √d", weights[looks]), ("without √d", unscaled[looks])):
    on_patches = row[model.num_prefix_tokens :]
    print(
        f"{name:10}: {100 * on_patches.sum():3.0f} % on patches; the strongest, "
        f"{divmod(int(on_patches.argmax()), cols)}, gets {100 * on_patches.max():.0f} %"
    )
assert torch.allclose(weights.sum(dim=-1), torch.ones(N), atol=1e-5)
assert unscaled[looks].max() > weights[looks].max()

# %% [markdown]
# Scores may be negative, and their maps have a middle (pale: 0). Weights are never negative, and
# what was negative is nearly gone. The order of the patches is the same in all three maps, for
# neither a division by a positive number nor softmax changes who comes first; the *shares* are
# what √d changes.

# %% [markdown]
# ## 3. Why √d
#
# Let the d entries of q and k be independent, with mean 0 and variance 1. Then each product
# $q_c k_c$ has mean 0 and variance 1, and variances of independent terms add up:
#
# $$\mathrm{Var}(q \cdot k) = \sum_{c=1}^{d} \mathrm{Var}(q_c k_c) = d
# \qquad\Rightarrow\qquad \mathrm{deviation\ of\ } q \cdot k = \sqrt d$$
#
# So wider heads have larger scores, for no other reason than their width. Softmax turns
# differences into factors: with d = 1,024 the deviation is 32, and a difference of 32 is a factor
# of e³².
#
# How many keys a query looks at is told by the **entropy** of its row,
# $-\sum_j w_j \log w_j$: log M where all M keys get the same, 0 where one key gets all. e to the
# entropy is a number of keys. A second number tells whether such a row can still learn:
# $\sum_j \partial w_j / \partial s_j = \sum_j w_j (1 - w_j) = 1 - \sum_j w_j^2$, what the weights
# answer to a change of their scores. It is 0 where one key has all.
#
# **Before you run it:** one curve divides by 1, one by √d, one by d. Which one falls, which one
# stays, and where does the third go?


# %%
def entropy(weights: Tensor) -> Tensor:
    """Entropy of each row in nats: (…, N, M) -> (…, N)."""
    return torch.special.entr(weights).sum(dim=-1)  # entr(w) = -w log w, and 0 for w = 0


M = 64  # keys
divisors = {"q·k": lambda d: 1, "q·k / √d": math.sqrt, "q·k / d": lambda d: d}
widths = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
entropies = {name: [] for name in divisors}
answers = {name: [] for name in divisors}
deviations = []
for width in widths:
    q_random, k_random = torch.randn(300, width, 1), torch.randn(300, M, width)
    dots = (k_random @ q_random)[:, :, 0]  # (300, M, d) x (300, d, 1) -> (300, M)
    deviations.append(dots.std().item())
    for name, divisor in divisors.items():
        shares = (dots / divisor(width)).softmax(dim=-1)  # (300, M)
        entropies[name].append(entropy(shares).mean().item())
        answers[name].append((1 - shares.square().sum(dim=-1)).mean().item())

print("d                ", "".join(f"{width:7}" for width in widths[2::2]))
print("deviation of q·k ", "".join(f"{deviation:7.2f}" for deviation in deviations[2::2]))
print("√d               ", "".join(f"{math.sqrt(width):7.2f}" for width in widths[2::2]))
print()
for name in divisors:
    first, last = entropies[name][3], entropies[name][-1]
    print(
        f"{name:9}: entropy {first:.2f} at d = 8; {last:.2f} at d = 1,024, "
        f"as {math.exp(last):.1f} equal keys have"
    )
for width, deviation in zip(widths[3:], deviations[3:], strict=True):
    assert abs(deviation / math.sqrt(width) - 1) < 0.05
assert entropies["q·k"][-1] < 0.2 < 3.5 < min(entropies["q·k / √d"][3:])
assert abs(entropies["q·k / √d"][widths.index(256)] - 3.69) < 0.05  # exercise 3.2
assert max(entropies["q·k / √d"][3:]) - min(entropies["q·k / √d"][3:]) < 0.1
assert entropies["q·k / d"][-1] > math.log(M) - 0.01

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.2), layout="constrained")
for name in divisors:
    left.plot(widths, entropies[name], "o-", markersize=3, label=name)
    right.plot(widths, answers[name], "o-", markersize=3, label=name)
left.axhline(math.log(M), color="grey", linestyle="--", linewidth=1, label="log 64: all keys alike")
left.set(ylabel="entropy of a row (nats)", title=f"How many of {M} keys a query looks at")
right.set(ylabel="1 − Σ w²", title="What the weights answer to their scores")
for axes in (left, right):
    axes.set_xscale("log", base=2)
    axes.set_xticks(widths[::2], [f"{width:,}" for width in widths[::2]])
    axes.set(xlabel="d, channels of a head", ylim=(0, None))
    axes.legend(fontsize=8)

# %% [markdown]
# Without a division, wide heads end at one key each, and the weights no longer answer: a head that
# has chosen wrongly hardly learns to choose otherwise. Divided by d, wide heads look at everything
# alike, and the output is the plain mean of all values. √d is the one power that keeps a random
# head the same at every width. It says where training *begins*.
#
# Where does training *end*? The same three divisions in each block of the trained model, with its
# own q and k.
#
# **Before you run it:** will trained scores have deviation 1 as random ones do?

# %%
trained = {name: [] for name in divisors}
spread = []
stream = model.embed(images)
for layer in model.blocks:
    q_all, k_all = layer.attn.queries_and_keys(layer.norm1(stream))  # (1, H, N, d) each
    dots = q_all @ k_all.transpose(-2, -1)  # (1, H, N, N)
    spread.append(dots.std(dim=-1).mean().item() / math.sqrt(d))
    for name, divisor in divisors.items():
        trained[name].append(entropy((dots / divisor(d)).softmax(dim=-1)).mean().item())
    stream, _ = layer(stream)

figure, axes = plt.subplots(figsize=(6.4, 3), layout="constrained")
for name in divisors:
    axes.plot(trained[name], "o-", markersize=3, label=name)
axes.axhline(math.log(N), color="grey", linestyle="--", linewidth=1, label=f"log {N}: all alike")
axes.set(xlabel="block", ylabel="entropy of a row (nats)", ylim=(0, None))
axes.set_title(f"Trained heads, d = {d}: mean over all rows of a block", fontsize=10)
axes.set_xticks(range(len(model.blocks)))
axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))

print("deviation of q·k/√d within a row, by block:", " ".join(f"{s:.1f}" for s in spread))
for without, with_root, with_d in zip(*trained.values(), strict=True):
    assert without < with_root < with_d < math.log(N)
assert statistics.median(spread) > 1.5

# %% [markdown]
# Training has made the scores larger than random ones, in at least half of the blocks by 1.5 times
# or more: queries and keys grew where a head had something to look for. √d is not a law about
# trained heads but a start from which they can go either way. It is also part of the trained
# weights: without it, the same weights give other maps.
#
# ## Exercise 3.2: by which number?
# Open question with a number as its answer. q and k are random as above, with d = 256 and M = 64
# keys. Divided by √d = 16, a row has 3.69 of log 64 = 4.16 nats, as 40 equal keys of the 64 have.
# By which number must q·k be divided so that the *mean entropy of a row is half of log 64*, so that
# a query looks at 8 keys' worth (e to the half of log 64 is √64)? Measure it; two digits will do.

# %% exercise="3.2" tags=["stub"]
divisor_for_8_keys = ...

check_divisor(divisor_for_8_keys)

# %% [markdown] exercise="3.2" tags=["hint"]
# <details><summary>Hint</summary>
#
# Draw a thousand rows once. Write the mean entropy as a function of the divisor. It grows with
# the divisor, so that you may halve an interval: too sharp, go up; too flat, go down.
#
# </details>

# %% [markdown] exercise="3.2" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# torch.manual_seed(1)
# dots = (torch.randn(1000, 64, 256) @ torch.randn(1000, 256, 1))[:, :, 0]  # (1000, M)
# low, high = 1.0, 16.0
# for _ in range(30):
#     divisor_for_8_keys = (low + high) / 2
#     shares = (dots / divisor_for_8_keys).softmax(dim=-1)
#     if torch.special.entr(shares).sum(dim=-1).mean() < math.log(64) / 2:
#         low = divisor_for_8_keys  # too sharp
#     else:
#         high = divisor_for_8_keys
# print(divisor_for_8_keys)
# ```
#
# </details>

# %% [markdown]
# ## 4. Softmax over the wrong axis
#
# The weights are (N, M), and in self-attention N = M. Then `softmax(dim=-1)` and `softmax(dim=-2)`
# give the same shape, both run, and both are trained without an error. One shares a query's weight
# among the keys. The other shares each *key* among the queries.
#
# **Before you run it:** with the wrong axis, what do the rows sum to? And if one query is taken
# away, does that change what the *others* get?

# %%
wrong = (q @ k.T / math.sqrt(d)).softmax(dim=-2)  # (N, M), over the queries
row_sums = wrong.sum(dim=-1)  # (N,)
print(f"over the keys:    rows sum to {weights.sum(-1).min():.4f} to {weights.sum(-1).max():.4f}")
print(f"over the queries: rows sum to {row_sums.min():.4f} to {row_sums.max():.4f}")
print(
    f"                  the largest row sum is {row_sums.max() / row_sums.min():.0f} x the smallest"
)
print(f"                  columns sum to {wrong.sum(-2).min():.4f} to {wrong.sum(-2).max():.4f}")

fewer = attention_v1(q[1:], k, v)[0]  # without query 0
changed = (fewer - output[1:]).abs().max().item()
fewer_wrong = (q[1:] @ k.T / math.sqrt(d)).softmax(dim=-2) @ v
changed_wrong = (fewer_wrong - (wrong @ v)[1:]).abs().max().item()
print(
    f"one query fewer changes the others' output by {changed:.1e} (over the keys), "
    f"{changed_wrong:.1e} (over the queries)"
)
alike = F.cosine_similarity(output, wrong @ v, dim=-1)
print(
    f"cosine of right and wrong outputs: {alike.mean():.2f} in the mean, {alike.min():.2f} at least"
)
assert torch.allclose(wrong.sum(-2), torch.ones(N), atol=1e-5)
assert changed < 1e-5 < 1e-4 < changed_wrong
assert row_sums.max() > 3 * row_sums.min()

figure, axes = plt.subplots(1, 3, figsize=(9.6, 2.9), layout="constrained")
draw(axes[0], weights[looks], "softmax over the keys", photo=False)
draw(axes[1], wrong[looks], "softmax over the queries", photo=False)
draw(axes[2], row_sums, "over the queries: sum of each patch's row", photo=False)

# %% [markdown]
# With the wrong axis some tokens take in far more than others (the printed ratio of row sums says
# how many times as much), and a token's output depends on who else is asking. Nothing raises an
# error, maps may even look alike, and in training a network can learn to live with it. Two tests
# catch it at once: **rows sum to 1**, and **one query fewer changes nothing for the others**. Test
# with N ≠ M, so that a wrong axis is not hidden by a square.

# %% [markdown]
# ## 5. Version 2: masks
#
# Some keys must not be seen: padding behind a short sentence, later words in a decoder. A mask is
# boolean, **True = may attend**. The score of a hidden key becomes $-\infty$ before softmax, and
# $e^{-\infty} = 0$:
#
# $$w_{ij} = \frac{m_{ij}\, e^{s_{ij}}}{\sum_l m_{il}\, e^{s_{il}}}$$
#
# The sum below runs over the visible keys alone. So what remains visible is multiplied by one
# factor, 1 / (the weight that was visible before).
#
# **Before you run it:** we hide the right part of the picture from all queries. What happens to the
# map on the other part?


# %%
def attention_v2(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One head with a mask (N, M), or one that broadcasts to it; True = may attend."""
    scores = q @ k.T / math.sqrt(q.shape[-1])  # (N, d) x (d, M) -> (N, M)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)  # new: before softmax
    weights = scores.softmax(dim=-1)
    return weights @ v, weights  # (N, M) x (M, d) -> (N, d)


column = torch.arange(cols).expand(rows, cols).flatten()  # (rows·cols,) column of each patch
seen = torch.ones(N, dtype=torch.bool)  # (M,)
seen[model.num_prefix_tokens :] = column < patch[1] + 2  # what lies to the right is hidden
masked = attention_v2(q, k, v, seen)[1]  # (N, M)

visible = weights[looks, seen].sum()
ratio = masked[looks, seen] / weights[looks, seen]
print(f"visible before: {visible:.3f} of the weight; 1 / {visible:.3f} = {1 / visible:.3f}")
print(f"visible keys, weight after / before: {ratio.min():.3f} to {ratio.max():.3f}")
assert torch.allclose(ratio, 1 / visible, rtol=1e-4)
assert masked[:, ~seen].max() == 0

figure, axes = plt.subplots(1, 2, figsize=(6.6, 2.9), layout="constrained")
draw(axes[0], weights[looks], "all keys visible", photo=False)
draw(axes[1], masked[looks], "the right part hidden (grey)", photo=False)
edge = box[0] + (box[2] - box[0]) * (patch[1] + 2) / cols  # in pixels of the picture
_ = axes[1].axvspan(edge, box[2], color="0.75")

# %% [markdown]
# The map on the visible part keeps its shape and grows. Three ways to get a mask wrong are in
# circulation; here they are in numbers, on the same row.

# %%
row = (q @ k.T / math.sqrt(d))[looks]  # (M,) scores
after = row.softmax(-1) * seen  # the mask comes after softmax
zeroed = (row * seen).softmax(-1)  # a score of 0 stands for "hidden"
print(f"mask after softmax:   the row sums to {after.sum():.3f}")
print(f"scores times mask:    hidden keys get {zeroed[~seen].sum():.3f}, since e^0 = 1 is not 0")
nobody = torch.zeros(N, dtype=torch.bool)
print(f"no key visible:       {row.masked_fill(~nobody, -math.inf).softmax(-1)[:3].tolist()} …")
assert after.sum() < 1 and zeroed[~seen].sum() > 0

batch = [part[None, None] for part in (q, k, v)]  # (N, d) -> (1, 1, N, d)
library, library_weights = plain_attention(*batch, mask=nobody)
fused = F.scaled_dot_product_attention(*batch, attn_mask=nobody[None])
print(
    f"no key visible, minivit: weights sum to {library_weights.sum():.0f}, "
    f"output {library.abs().max():.0f}"
)
print(f"no key visible, torch {TORCH}'s fused kernel: output {fused.abs().max():.0f}")
assert library_weights.sum() == 0 and library.abs().max() == 0

# %% [markdown]
# A query without any visible key has nothing to share out: 0/0. minivit, and torch's fused kernel
# of the version above, give weights of 0, and so an output of 0. One NaN would otherwise spread
# through the next block to all tokens.
#
# A **causal** mask hides later keys from earlier queries. With N = M it is a triangle. With fewer
# queries than keys, as when a decoder adds words to a sentence that it has read already, the
# triangle must be put somewhere.
#
# **Before you run it:** 3 queries, 5 keys, causal. Which keys should the first query see?

# %%
print("minivit: the last query sees the last key\n", causal_mask(3, 5).int().numpy())
ones = torch.ones(1, 1, 3, 8), torch.ones(1, 1, 5, 8)  # all scores alike
kernel = F.scaled_dot_product_attention(*ones, torch.eye(5)[None, None], is_causal=True)
print(
    f"torch {TORCH}, is_causal=True: the first query sees the first key\n",
    kernel[0, 0].gt(0).int().numpy(),
)
assert causal_mask(3, 5).int()[0].tolist() == [1, 1, 1, 0, 0]

# %% [markdown]
# For a decoder the new queries are the *last* tokens, so the triangle belongs in the lower right
# corner. minivit puts it there; `is_causal=True` of torch's function puts it into the upper left
# one, and the words of the past vanish.
#
# ## Exercise 3.3: a masked softmax
# Compute the weights from scores and a mask. A row that may see nothing gets weights of 0, and its
# gradient must be finite, too: a NaN that is made and then overwritten may come back in training.
# Scores may be 200 or -200, those of hidden keys, too.


# %% exercise="3.3" tags=["stub"]
def masked_weights(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the visible keys; 0 elsewhere, and in rows without a visible key.

    scores (B, H, N, M), mask boolean and broadcastable to it, True = may attend -> (B, H, N, M)
    """
    ...


check_masked_weights(masked_weights)

# %% [markdown] exercise="3.3" tags=["hint"]
# <details><summary>Hint</summary>
#
# `scores.masked_fill(~mask, number)` makes a new tensor. With the lowest finite number,
# `torch.finfo(scores.dtype).min`, a softmax has no NaN, and hidden keys get 0, unless *all* are
# hidden: what do they get then, and what can be done about it after softmax? The gradient is
# finite where every number on the way is: `torch.where` and `nan_to_num` replace a NaN in the
# result, but the gradient of the line that made it may still be NaN.
#
# </details>

# %% [markdown] exercise="3.3" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def masked_weights(scores: Tensor, mask: Tensor) -> Tensor:
#     lowest = torch.finfo(scores.dtype).min  # not -inf: a row of these has no NaN
#     weights = scores.masked_fill(~mask, lowest).softmax(dim=-1)
#     return weights.masked_fill(~mask, 0.0)  # a row without a visible key was uniform
# ```
#
# </details>

# %% [markdown]
# ## 6. Version 3: heads
#
# One head has one row of weights for a query, and so one mean. A mean of two places is neither of
# them: a query that wants its own surroundings *and* the other eye needs two rows. So the D
# channels of q, k and v are cut into H groups of d = D/H, each group attends on its own, and the
# H outputs are put side by side and mixed by one more matrix $W_O$:
#
# $$\mathrm{head}_h = \mathrm{Attention}(Q_h, K_h, V_h) \qquad
# \mathrm{output} = \mathrm{concat}(\mathrm{head}_1, \dots, \mathrm{head}_H)\, W_O^\top + b_O$$
#
# Heads cost no parameters: the matrices are D × D, however the channels are grouped.
#
# **Cutting the channels.** (B, N, D) must become (B, H, N, d), and `view(B, H, N, d)` has the right
# shape, too. It is wrong: a view keeps the order of the numbers in memory, and there the D channels
# of a token lie side by side. The picture shows 6 tokens of 6 channels, 3 heads: which number goes
# to which head?
#
# **Before you run it:** with the plain view, which tokens will head 0 get?

# %%
tokens_of_6 = torch.arange(36.0).view(1, 6, 6)  # (B, N, D), every number is its own place
right_heads = rearrange(tokens_of_6, "b n (h d) -> b h n d", h=3)  # (1, 3, 6, 2)
wrong_heads = tokens_of_6.view(1, 3, 6, 2)  # the same shape
figure, axes = plt.subplots(1, 2, figsize=(4.8, 2.7), layout="constrained")
for place, heads, title in zip(
    axes, (right_heads, wrong_heads), ('"b n (h d) -> b h n d"', ".view(B, H, N, d)"), strict=True
):
    owner = torch.empty(36)
    for number in range(3):
        owner[heads[0, number].flatten().long()] = number
    place.imshow(owner.view(6, 6), cmap=plt.get_cmap("viridis", 3))
    for token in range(6):
        for channel in range(6):
            name = int(owner.view(6, 6)[token, channel])
            place.text(
                channel,
                token,
                name,
                ha="center",
                va="center",
                color="black" if name == 2 else "white",
                fontsize=8,
            )
    place.set(xlabel="channel", ylabel="token", title=title)
figure.suptitle("which head gets which number", fontsize=10)
assert right_heads[0, 0].flatten().long().remainder(6).unique().tolist() == [0, 1]  # channels
assert wrong_heads[0, 0].flatten().long().div(6, rounding_mode="floor").unique().tolist() == [0, 1]

# %% [markdown]
# With the plain view, head 0 gets all channels of tokens 0 and 1 and calls them six tokens: tokens
# of one head no longer meet those of another. The way back has the same trap: (B, H, N, d) must be
# transposed before it is flattened.
#
# ## Exercise 3.4: self-attention with heads
# Write all of it as a function of the weights, without a mask: project, cut into heads, attend,
# put side by side, mix. The rows of `qkv_weight` are W_Q, W_K and W_V below each other, and in each
# of them head after head.


# %% exercise="3.4" tags=["stub"]
def multi_head(
    x: Tensor,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    num_heads: int,
) -> Tensor:
    """x (B, N, D), qkv (3·D, D) and (3·D,), proj (D, D) and (D,) -> (B, N, D)."""
    ...


check_multi_head(multi_head)

# %% [markdown] exercise="3.4" tags=["hint"]
# <details><summary>Hint</summary>
#
# A linear layer multiplies with the transpose of its matrix: `x @ weight.T + bias`.
# `chunk(3, dim=-1)` cuts (B, N, 3·D) into q, k and v. `reshape(B, N, H, d).transpose(1, 2)` is
# (B, H, N, d). The way back is the same two steps in the other order.
#
# </details>

# %% [markdown] exercise="3.4" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def multi_head(
#     x: Tensor,
#     qkv_weight: Tensor,
#     qkv_bias: Tensor,
#     proj_weight: Tensor,
#     proj_bias: Tensor,
#     num_heads: int,
# ) -> Tensor:
#     projected = x @ qkv_weight.T + qkv_bias  # (B, N, D) -> (B, N, 3·D)
#     parts = projected.chunk(3, dim=-1)  # (B, N, 3·D) -> three of (B, N, D)
#     q, k, v = (rearrange(part, "b n (h d) -> b h n d", h=num_heads) for part in parts)
#     weights = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(dim=-1)
#     together = rearrange(weights @ v, "b h n d -> b n (h d)")
#     return together @ proj_weight.T + proj_bias
# ```
#
# </details>

# %% [markdown]
# Version 3 is the same as a module, with the mask of version 2. `qkv` and `proj` are the names that
# public checkpoints give these layers, so that trained weights can be copied by name.
#
# **Before you run it:** the patch of section 2 looks with all heads of its block. How many of their
# maps will be like the one that you have seen?


# %%
class AttentionV3(nn.Module):
    """Self-attention with H heads; the names of its weights are those of public ViTs."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)  # new: W_Q, W_K and W_V of all heads in one matrix
        self.proj = nn.Linear(dim, dim)  # new: W_O

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (B, N, D), mask broadcastable to (B, H, N, N) -> (B, N, D), weights (B, H, N, N)."""
        projected = self.qkv(x)  # (B, N, D) -> (B, N, 3·D)
        q, k, v = rearrange(  # new: a dimension for the heads
            projected, "b n (three h d) -> three b h n d", three=3, h=self.num_heads
        )
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # d of a head, not D
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf)
        weights = scores.softmax(dim=-1)  # (B, H, N, N)
        heads = weights @ v  # (B, H, N, N) x (B, H, N, d) -> (B, H, N, d)
        together = rearrange(heads, "b h n d -> b n (h d)")  # new: side by side
        return self.proj(together), weights  # (B, N, D) -> (B, N, D)


def parameters(module: nn.Module) -> int:
    """Number of weights."""
    return sum(parameter.numel() for parameter in module.parameters())


for count in (1, 2, 4, 8):
    print(f"H = {count}: {parameters(AttentionV3(64, count)):,} parameters = 4·D² + 4·D")
    assert parameters(AttentionV3(64, count)) == 4 * 64**2 + 4 * 64

by_hand = AttentionV3(D, H)
by_hand.load_state_dict(attn.state_dict())  # the trained weights, by name
output_v3, weights_v3 = by_hand(x)  # (1, N, D), (1, H, N, N)
print(
    f"head {head} of version 3 is version 1: weights apart by "
    f"{(weights_v3[0, head] - weights).abs().max():.1e}"
)
assert torch.allclose(weights_v3[0, head], weights, atol=1e-5)

figure, axes = plt.subplots(1, H + 1, figsize=(1.5 * (H + 1), 2.1), layout="constrained")
for number in range(H):
    row = weights_v3[0, number, looks]  # (N,)
    draw(
        axes[number],
        row,
        f"head {number}\nmax {row[model.num_prefix_tokens :].max():.2f}",
        bar=False,
    )
row = weights_v3[0, :, looks].mean(dim=0)  # (H, N) -> (N,)
draw(axes[H], row, f"mean\nmax {row[model.num_prefix_tokens :].max():.2f}", bar=False)
_ = figure.suptitle(
    f"block {block}: what one patch looks at; colours from 0 to each map's maximum", fontsize=9
)

# %% [markdown]
# Each head has a map of its own, some narrow and some wide. The last panel, their mean, is a map
# that no head has. How alike are the heads' rows?

# %%
pairs = F.cosine_similarity(weights_v3[0, :, None], weights_v3[0, None], dim=-1)  # (H, H, N)
others = pairs.mean(dim=-1)[~torch.eye(H, dtype=torch.bool)]
print(f"cosine of two heads' rows, mean over tokens: {others.min():.2f} to {others.max():.2f}")
counts = entropy(weights_v3).exp().mean(dim=-1)[0]  # (1, H, N, N) -> (H,)
print("keys that a row looks at (e^entropy), by head:", [round(n) for n in counts.tolist()])
rank = torch.linalg.matrix_rank(q @ k.T).item()
print(f"rank of the scores of a head, {N} x {N}: {rank} (at most d = {d})")
assert rank <= d

# %% [markdown]
# The last line is the price of heads: QKᵀ of a head is a product over d channels, so its rank is
# at most d. More heads mean more means and simpler ones.

# %% [markdown]
# ## 7. The fused kernel: same numbers, less memory
#
# The weights are N × M numbers a head, and nobody needs them: the output is N × d. Can the mean be
# had without ever writing the weights down? Softmax divides by a sum over *all* keys, so it seems
# that all scores must be there first. They need not: take the keys in blocks, and keep for each
# query three things, the largest score so far $m$, the sum so far $\ell = \sum_j e^{s_j - m}$ and
# the mix so far $o = \sum_j e^{s_j - m} v_j$. When a block brings a larger score $m'$, what was
# kept is multiplied by $e^{m - m'}$:
#
# $$\ell \leftarrow e^{m - m'} \ell + \sum_{j \in \mathrm{block}} e^{s_j - m'} \qquad
# o \leftarrow e^{m - m'} o + \sum_{j \in \mathrm{block}} e^{s_j - m'} v_j \qquad
# \mathrm{at\ the\ end}\quad o / \ell$$
#
# This is exact, not an approximation (arXiv:1805.02867, arXiv:2205.14135). A fused kernel does it
# block by block, in memory so small that it stays near the processor.
# `F.scaled_dot_product_attention` is torch's, and minivit calls it wherever no weights are wanted.
#
# ## Exercise 3.5: attention in blocks of keys
# Write it without torch's kernel: `size` keys at a time, and so never more scores than N × `size` a
# head. Scores may be in the hundreds (those of trained models are), where $e^{s}$ alone would be
# infinite.


# %% exercise="3.5" tags=["stub"]
def blockwise_attention(q: Tensor, k: Tensor, v: Tensor, size: int) -> Tensor:
    """softmax(Q Kᵀ / √d) V from `size` keys at a time.

    q (B, H, N, d), k and v (B, H, M, d) -> (B, H, N, d); size need not divide M
    """
    ...


check_blockwise_attention(blockwise_attention)

# %% [markdown] exercise="3.5" tags=["hint"]
# <details><summary>Hint</summary>
#
# Begin with m = -inf, ℓ = 0 and o = 0; `q[..., :1]` has the shape of m and ℓ, (B, H, N, 1).
# `zip(k.split(size, dim=-2), v.split(size, dim=-2))` gives the blocks, the last one as short as it
# is. In each: scores, the new largest score, the factor for what was kept, then the two sums.
#
# </details>

# %% [markdown] exercise="3.5" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def blockwise_attention(q: Tensor, k: Tensor, v: Tensor, size: int) -> Tensor:
#     q = q / math.sqrt(q.shape[-1])
#     largest = torch.full_like(q[..., :1], -math.inf)  # (B, H, N, 1)
#     total, output = torch.zeros_like(largest), torch.zeros_like(q)
#     for keys, values in zip(k.split(size, dim=-2), v.split(size, dim=-2), strict=True):
#         scores = q @ keys.transpose(-2, -1)  # (B, H, N, size)
#         new = torch.maximum(largest, scores.amax(dim=-1, keepdim=True))
#         kept, terms = (largest - new).exp(), (scores - new).exp()
#         total = kept * total + terms.sum(dim=-1, keepdim=True)
#         output = kept * output + terms @ values
#         largest = new
#     return output / total
# ```
#
# </details>

# %% [markdown]
# Now torch's kernel. The helper below asks torch's profiler for every piece of memory that is taken
# and given back during a call, and adds them up.
#
# **Before you run it:** 6 heads, 2,048 tokens, d = 64. The output takes 3 MiB. How much does the
# plain equation take at its peak, and how much the fused kernel?


# %%
def memory_of(function) -> tuple[float, float]:
    """MiB that a call takes at its peak, and what its result still holds afterwards."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        result = function()
    events = record.profiler.kineto_results.events()
    pieces = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    in_use = torch.tensor([size for _, size in sorted(pieces, key=lambda piece: piece[0])]).cumsum(
        0
    )
    del result
    return in_use.max().item() / 2**20, in_use[-1].item() / 2**20


def random_qkv(length: int) -> list[Tensor]:
    """Three tensors (1, 6, N, 64)."""
    return [torch.randn(1, 6, length, 64) for _ in range(3)]


ways = {
    "plain equation": lambda q, k, v: plain_attention(q, k, v)[0],
    "minivit, all weights": lambda q, k, v: scaled_dot_product_attention(
        q, k, v, need_weights=True
    ),
    "minivit, row 0": lambda q, k, v: scaled_dot_product_attention(q, k, v, rows=[0]),
    "fused kernel": F.scaled_dot_product_attention,
}
lengths = [128, 256, 512, 1024, 2048]
peaks = {name: [] for name in ways}
for length in lengths:
    qkv = random_qkv(length)
    for name, way in ways.items():
        peaks[name].append(memory_of(lambda way=way, qkv=qkv: way(*qkv))[0])

qkv = random_qkv(1024)
outputs = [plain_attention(*qkv)[0], F.scaled_dot_product_attention(*qkv)]
apart = (outputs[0] - outputs[1]).abs().max().item()
print(f"plain and fused are apart by {apart:.1e}, of values up to {outputs[0].abs().max():.2f}")
print("\npeak in MiB          ", "".join(f"{length:>8}" for length in lengths), " tokens")
for name in ways:
    print(f"{name:21}", "".join(f"{peak:8.1f}" for peak in peaks[name]))
weights_mib = 6 * 2048**2 * 4 / 2**20
print(
    f"\n6 heads x 2,048² weights x 4 bytes = {weights_mib:.0f} MiB; "
    f"the output: {6 * 2048 * 64 * 4 / 2**20:.0f} MiB"
)
assert apart < 1e-5
assert peaks["plain equation"][-1] > 2 * weights_mib  # scores and weights
assert peaks["fused kernel"][-1] < weights_mib / 10
assert peaks["minivit, row 0"][-1] < 1.1 * peaks["fused kernel"][-1]

figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
for (name, peak), style in zip(peaks.items(), ("o-", "s-", "x--", "o-"), strict=True):
    axes.plot(lengths, peak, style, markersize=5, label=name, zorder=3 if style == "x--" else 2)
axes.set_xscale("log", base=2)
axes.set_yscale("log")
axes.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
axes.set(
    xlabel="tokens", ylabel="MiB at the peak", title="Memory of one attention, 6 heads, d = 64"
)
axes.set_xticks(lengths, [str(length) for length in lengths])
axes.grid(alpha=0.3)
_ = axes.legend(fontsize=8)

# %% [markdown]
# The plain equation holds scores and weights at once, twice N × M numbers a head. minivit's own way
# to *all* weights writes the weights into the memory of the scores, and takes half of that. The
# fused kernel takes hardly more than its output: doubling the tokens doubles its memory instead of
# multiplying it by 4.
#
# The same numbers to within rounding: the order of the sums differs, and so do the last bits.
#
# In training the difference stays after the call: the plain equation keeps its weights for the
# backward pass, the fused one keeps q, k, v, the output and one number a query, and computes the
# weights again.

# %%
with torch.enable_grad():
    qkv = [part.requires_grad_() for part in random_qkv(1024)]
    for name in ("plain equation", "fused kernel"):
        _, kept = memory_of(lambda name=name: ways[name](*qkv))
        print(f"{name}: {kept:5.1f} MiB kept for the backward pass")

times = {name: [] for name in ways}
qkv = random_qkv(1024)
for _ in range(7):
    for name, way in ways.items():
        start = time.perf_counter()
        way(*qkv)
        times[name].append(1000 * (time.perf_counter() - start))
print("\n1,024 tokens on this machine, median of 7 rounds")
for name in ways:
    print(f"{name:21} {statistics.median(times[name]):6.1f} ms")

# %% [markdown]
# Times are this machine's; run it on yours. The arithmetic is the same, N · M · d products twice;
# the kernel saves the weights' trip to memory and back. On a processor whose cache is large
# that may be little. On a GPU, which computes fast and has its memory far away, it is most of the
# time (arXiv:2205.14135).

# %% [markdown]
# ## 8. Rows beside the kernel
#
# The kernel never has the weights, and this whole course wants to look at them. Most code that
# wants weights gives the kernel up, in all blocks. But one looks at few rows: the class token's,
# or one patch's. A row needs *one* query and all keys:
#
# $$w_i = \mathrm{softmax}(q_i K^\top / \sqrt d)
# \qquad 1 \times M\ \mathrm{instead\ of}\ N \times M$$
#
# So minivit lets the kernel make the output, and computes the rows that were asked for beside it:
# `scaled_dot_product_attention(q, k, v, rows=[0])`. In the figure above its curve lies on the
# kernel's.
#
# **Before you run it:** will the output with rows differ from the output without in its last bits?

# %%
rows_wanted = minivit.AttentionRows(blocks=[block], queries=[looks])
plain_features = model(images)
features, attentions = model(images, return_attention=rows_wanted)
print(
    "output with rows equals the one without, bit for bit:", torch.equal(features, plain_features)
)
print("the row:", tuple(attentions[0].shape), "= (B, H, rows asked for, N)")
difference = (attentions[0][0, :, 0] - weights_v3[0, :, looks]).abs().max().item()
print(f"the row is apart from version 3's by {difference:.1e}")
assert torch.equal(features, plain_features)
assert difference < 1e-5

depth = len(model.blocks)
for side in (1, 2):  # the same picture, and one of twice the height and width
    length = model.num_prefix_tokens + rows * side * cols * side
    all_maps, one_row = depth * H * length**2 * 4, H * length * 4
    print(
        f"{length:5} tokens: all maps {all_maps / 2**20:7.1f} MiB, "
        f"one row of one block {one_row / 2**10:5.1f} KiB"
    )

# %% [markdown]
# ## 9. This is `minivit.MultiHeadAttention`
#
# Version 3 with the library's weights, against the library: for every block of the trained model,
# with and without a mask, in output, weights and gradients.

# %%
with torch.enable_grad():
    worst = 0.0
    stream = model.embed(images).detach()
    for layer in model.blocks:
        inner = layer.norm1(stream).detach().requires_grad_()
        by_hand.load_state_dict(layer.attn.state_dict())
        for mask in (None, causal_mask(N, N)):
            ours, our_weights = by_hand(inner, mask)
            theirs, their_weights = layer.attn(inner, mask=mask, need_weights=True)
            fused, nothing = layer.attn(inner, mask=mask)
            (our_slope,) = torch.autograd.grad(ours.square().mean(), inner)
            (their_slope,) = torch.autograd.grad(theirs.square().mean(), inner)
            scale = max(1.0, theirs.abs().max().item())
            assert nothing is None  # weights are given only where they are asked for
            assert torch.allclose(
                our_slope, their_slope, rtol=1e-3, atol=1e-4 * their_slope.abs().max()
            )
            for one, other in ((ours, theirs), (our_weights, their_weights), (ours, fused)):
                worst = max(worst, (one - other).abs().max().item() / scale)
        stream = layer(stream)[0].detach()
print(f"{depth} blocks, with and without a mask: apart by {worst:.1e} at most")
assert worst < 1e-4

# %% [markdown]
# What the library has beyond version 3 changes none of these numbers: it asks the fused
# kernel where no weights are wanted, gives 0 and not NaN where all keys are hidden, takes keys and
# values from elsewhere (cross-attention, lesson 8), keeps them for the next word (a cache, lesson
# 8), and computes weights in float32 where the model is of half precision. Read it now:
# [`minivit/attention.py`](../minivit/attention.py); `plain_attention` is its heart.
#
# And torch's own layer? The same again, under three other conventions.

# %%
module = nn.MultiheadAttention(D, H, dropout=0.2, batch_first=True)
module.in_proj_weight.copy_(attn.qkv.weight)
module.in_proj_bias.copy_(attn.qkv.bias)
module.out_proj.load_state_dict(attn.proj.state_dict())

module.eval()
each = {"need_weights": True, "average_attn_weights": False}
mask = causal_mask(N, N)
ours, our_weights = attn(x, mask=mask, need_weights=True)
theirs, their_weights = module(x, x, x, attn_mask=~mask, **each)  # there True = hidden
gap = max((ours - theirs).abs().max().item(), (our_weights - their_weights).abs().max().item())
print(f"nn.MultiheadAttention of torch {TORCH}: apart by {gap:.1e}, with the mask turned over")
print(
    "weights as it gives them by default:", tuple(module(x, x, x)[1].shape), "the mean over heads"
)
module.train()
sums = module(x, x, x, **each)[1].sum(dim=-1)
print(f"in training its rows sum to {sums.min():.2f} to {sums.max():.2f}: weights after dropout")
assert gap < 1e-3

# %% [markdown]
# ## Questions
#
# **1.** In a trained model somebody sets the bias of the keys to 0. What happens to the output?
#
# <details><summary>Answer</summary>
#
# Nothing. The score of key j is q·(W x_j + b) = q·W x_j + q·b, and q·b is the same for all keys of
# a query. Softmax looks at differences only. The bias of the queries is another matter:
# q then brings b·k_j, which differs from key to key. (A test of this lesson holds both.)
#
# </details>
#
# **2.** A decoder has a causal mask, and softmax runs over the queries. Can a word see the future?
#
# <details><summary>Answer</summary>
#
# Yes. The weight of query i on key j is then divided by a sum over all queries that may see j, and
# the later queries are among them. No value of a later token arrives, but the divisor carries its
# query. Change the last token, and the outputs of the earlier ones change. (A test holds this,
# too.)
#
# </details>
#
# **3.** The patches of a picture are put into another order before version 3 sees them. What
# happens to its output, and what does that say about a ViT without positions?
#
# <details><summary>Answer</summary>
#
# The outputs come in the same new order, otherwise unchanged: scores belong to pairs, and a sum
# over keys does not know their order. Without positions the class token of a ViT sees a bag of
# patches, and a shuffled picture is the same picture to it. Lesson 2 shows what positions add. (A
# test holds the first sentence.)
#
# </details>
#
# ## What people get wrong
#
# - **Softmax over the queries.** A much-read implementation of a diffusion model did it. A reader
#   who put it right reported no difference in the quality of pictures on CIFAR-10, FID within 0.05,
#   and a slightly worse result of the right model after longer training
#   (labmlai/annotated_deep_learning_paper_implementations, issue 146). Training adapts to the
#   fault, so a good loss is no proof; the row sums of section 4 are.
# - **Heads put together without the transpose.** A teaching project flattened (B, H, N, d) as it
#   was, which mixes tokens. Its test, copying a sequence, passed all the same, because the mix is
#   always the same one and the network learned around it (jsbaan/transformer-from-scratch, pull
#   request 6). Compare with a loop over heads, at N ≠ H.
# - **√D instead of √d.** The width of the model stands in the scale where the width of a head
#   belongs, until January 2021 in vit-pytorch, too (lucidrains/vit-pytorch, issue 65). Weights
#   trained so work in that code; loaded elsewhere, their maps are too flat or too sharp.
# - **The mask turned over.** True means "look" to `F.scaled_dot_product_attention` and to minivit,
#   and "do not look" to `nn.MultiheadAttention` (section 9 computes it, and says for which torch).
#   Code that is moved from one to the other lets words see the future and not the past, without an
#   error (rasbt/LLMs-from-scratch, issue 1061).
# - **A causal triangle in the wrong corner.** `is_causal=True` with one new query and a cache of
#   keys lets the query see the first key only, and each new word is made as if it were the second
#   (section 5; pytorch/pytorch, issues 108108 and 144858).
# - **Weights that do not sum to 1.** Rows of `nn.MultiheadAttention` in training sum to more or
#   less than 1, as section 9 shows, since they are taken after dropout (pytorch/pytorch, issue
#   42929). Call `eval()` before you look, or take them before dropout, as minivit does.
#
# ## Sources
#
# - Attention Is All You Need, arXiv:1706.03762 (equation 1, section 3.2; its footnote 4 on √d)
# - Neural Machine Translation by Jointly Learning to Align and Translate, arXiv:1409.0473
# - An Image Is Worth 16x16 Words: Transformers for Image Recognition at Scale, arXiv:2010.11929
# - What Does BERT Look At? An Analysis of BERT's Attention, arXiv:1906.04341 (entropy of heads)
# - Online Normalizer Calculation for Softmax, arXiv:1805.02867
# - FlashAttention: Fast and Memory-Efficient Exact Attention with IO-Awareness, arXiv:2205.14135
