# %% [markdown]
# # 8. From picture to sentence
#
# A captioner has two halves: an encoder that makes tokens of a picture, and a decoder that writes
# one word after the other and looks at those tokens. This lesson builds a decoder block in three
# versions, trains it with and without a causal mask, searches sentences greedily and with beams,
# and keeps keys and values so that a word costs the same however long the sentence is.
#
# Time: 45 minutes to read, half a minute to run, an hour with the exercises. Know before: attention
# and masks (lesson 3), the block (lesson 4).
#
# Shapes: B pictures, M cells of a picture, T words, D width, H heads, d = D / H, V words of the
# vocabulary, K beams.

# %% tags=["imports"]
import math
import time

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from IPython.display import Markdown
from matplotlib.colors import LogNorm
from torch import Tensor, nn

import minivit
from minivit.attention import MultiHeadAttention
from minivit.blocks import MLP
from minivit.data.scenes.dataset import TEST_SEED, make_scene
from minivit.decoder import DecoderBlock
from minivit.generation import generate
from minivit.masks import causal_mask
from minivit.training.caption.scene_truth import scene_scores
from minivit.training.caption.task import caption_loss
from minivit.word_maps import decoder_input
from tutorials.checks import (
    check_beam_step,
    check_cached_step,
    check_causal_mask,
    check_picture_gain,
    check_sentence_loss,
)

plt.rcParams["figure.dpi"] = 90
_ = torch.set_grad_enabled(False)  # training turns it on where it is needed
torch.set_num_threads(1)  # these tensors are small: a second thread costs more than it computes

# %% [markdown]
# ## Two halves
#
# The model is the captioner inside the package. It describes the built-in scenes: drawn pictures
# whose objects, places and true captions are known.

# %%
captioner = minivit.load_model("scenes_captioner")
tokenizer = captioner.tokenizer
scenes = [make_scene(TEST_SEED, index) for index in range(100)]
scene = scenes[1]
image = captioner.preprocess(scene.image)[None]  # (1, 3, height, width)
grid = captioner.backbone_grid(image)
memory = captioner.encode(image)
sentence = [*tokenizer.encode(scene.caption), tokenizer.end_id]
tokens = decoder_input([sentence], tokenizer)  # the start token comes first
logits, _, _ = captioner.decode(tokens, memory)


def weights_of(*modules: nn.Module) -> str:
    return f"{sum(p.numel() for m in modules for p in m.parameters()):,}"


rows = [
    ("picture", "input", "", image),
    ("encoder", "ViT, its class token left out", weights_of(captioner.backbone), grid),
    (
        "encoder",
        "projection and one block: the memory",
        weights_of(captioner.input_proj, captioner.encoder, captioner.encoder_norm),
        memory.tokens,
    ),
    ("decoder", "words as numbers", "", tokens),
    (
        "decoder",
        "embedding, two blocks, head: logits",
        weights_of(captioner.word_embed, captioner.decoder, captioner.decoder_norm, captioner.head),
        logits,
    ),
]
lines = ["| half | what | weights | shape |", "| --- | --- | --- | --- |"]
lines += [f"| {a} | {b} | {c} | {tuple(t.shape)} |" for a, b, c, t in rows]
Markdown("\n".join(lines))

# %%
figure, axes = plt.subplots(1, 2, figsize=(6.4, 3.2))
axes[0].imshow(scene.image)
axes[0].set_title("the picture, 64 × 64 pixels", fontsize=9)
axes[1].imshow(scene.image.resize((96, 96)))
for line in range(0, 97, 8):
    axes[1].axhline(line - 0.5, color="white", linewidth=0.6)
    axes[1].axvline(line - 0.5, color="white", linewidth=0.6)
axes[1].set_title(f"{memory.grid[0]} × {memory.grid[1]} cells of the memory", fontsize=9)
for ax in axes:
    ax.set(xticks=[], yticks=[])
figure.tight_layout()
plt.show()
print("a true caption:   ", scene.caption)
print("the captioner's:  ", captioner.caption([scene.image])[0].text)

# %% [markdown]
# The encoder runs once a picture. The decoder runs once a word: it reads the words so far and gives
# V logits for the next one. All that it knows of the picture goes through the M tokens of the
# memory.

# %% [markdown]
# ## v1: words that see all words
#
# The first version of a decoder block is the attention of lesson 3, over words instead of patches:
#
# $$h = x + \mathrm{MSA}(\mathrm{LN}(x))$$
#
# **Before you run the next cell:** word 3 of five is exchanged for another one. Which rows of the
# output change?


# %%
class BlockV1(nn.Module):
    """Words look at all words."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = MultiHeadAttention(dim, num_heads)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attn(self.norm1(x))[0]  # (B, T, D)


def who_feels_whom(block: nn.Module, num_words: int = 5, dim: int = 32) -> Tensor:
    """(T, T): how far row i of the output moves when word j is exchanged."""
    generator = torch.Generator().manual_seed(8)
    x = torch.randn(1, num_words, dim, generator=generator)
    moved = torch.zeros(num_words, num_words)
    for word in range(num_words):
        other = x.clone()
        other[:, word] = torch.randn(dim, generator=generator)
        moved[:, word] = (block(other) - block(x))[0].norm(dim=-1)  # (1, T, D) -> (T,)
    return moved


torch.manual_seed(0)
v1 = BlockV1(32, 4)
moved_v1 = who_feels_whom(v1)
assert (moved_v1 > 0).all()
print("word 3 exchanged, rows that move:", moved_v1[:, 3].nonzero().flatten().tolist())

# %% [markdown]
# Every row moves. For a decoder this is fatal: row 2 has to predict word 3, and word 3 is in what
# it was given. In training it would copy; when it writes, there is nothing to copy from.
#
# ## v2: a causal mask
#
# A mask hides what comes later. True = may attend; word i sees words 0 to i, itself included.

# %% [markdown]
# ## Exercise 8.1: the causal mask
#
# Write the mask for N queries and M keys as a boolean tensor (N, M), True = may attend. For N = M
# row i sees columns 0 to i. For N < M the queries are the *last* N of M words, as they are when the
# earlier ones lie in a cache: the last row sees all M keys. One line is enough.


# %% exercise="8.1" tags=["stub"]
def my_causal_mask(num_queries: int, num_keys: int) -> Tensor:
    """(N, M) boolean: True where a query may attend to a key."""
    ...


check_causal_mask(my_causal_mask)

# %% [markdown] exercise="8.1" tags=["hint"]
# <details><summary>Hint</summary>
#
# `tril` keeps the lower triangle of a matrix of True. Its argument `diagonal` shifts the border:
# how far must it go to the right when the first query is word M − N?
#
# </details>

# %% [markdown] exercise="8.1" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def my_causal_mask(num_queries: int, num_keys: int) -> Tensor:
#     mask = torch.ones(num_queries, num_keys, dtype=torch.bool)
#     return mask.tril(diagonal=num_keys - num_queries)
# ```
#
# </details>


# %%
class BlockV2(BlockV1):
    """Words look at earlier words and at themselves."""

    def forward(self, x: Tensor) -> Tensor:
        mask = causal_mask(x.shape[1], x.shape[1])  # new: (T, T)
        return x + self.attn(self.norm1(x), mask=mask)[0]  # (B, T, D)


torch.manual_seed(0)
v2 = BlockV2(32, 4)  # the same weights as v1
moved_v2 = who_feels_whom(v2)

figure, axes = plt.subplots(1, 2, figsize=(6.4, 3.0), layout="constrained")
for ax, moved, name in zip(axes, (moved_v1, moved_v2), ("v1: no mask", "v2: causal"), strict=True):
    moves = moved.where(moved > 0, torch.nan)  # exactly 0 stays white
    shown = ax.imshow(moves, norm=LogNorm(0.1, 10), cmap="viridis")
    ax.set(title=name, xlabel="word exchanged", ylabel="row of the output")
figure.colorbar(shown, ax=axes, label="how far the row moves (norm)\nwhite: exactly 0")
plt.show()
assert (moved_v2.triu(1) == 0).all()  # not small: zero
assert (moved_v2.tril()[causal_mask(5, 5)] > 0).all()

# %% [markdown]
# Below the diagonal nothing is lost, above it everything is exactly 0. So one pass over a whole
# sentence gives at row i the same as a pass over the first i + 1 words alone. That makes training
# fast (all words at once) and caching possible (what was computed stays right).
#
# ## v3: cross-attention
#
# So far the words know no picture. In cross-attention the queries come from words, keys and values
# from cells:
#
# $$h' = h + \mathrm{softmax}\!\left(\frac{(\mathrm{LN}(h)+p)\,W_Q\,\big((m+c)\,W_K\big)^\top}
# {\sqrt d}\right) m\, W_V\, W_O$$
#
# with $m$ the memory, $p$ the positions of words and $c$ those of cells. As in DETR, positions are
# added to queries and keys and not to values: they say where to look, not what is passed on. An MLP
# follows, as in every block.
#
# **Before you run it:** there are T = 5 words and M = 144 cells. What is the shape of the weights,
# and along which dimension do they sum to 1?


# %%
class BlockV3(nn.Module):
    """Words look at earlier words, then at cells; then an MLP."""

    def __init__(self, dim: int, num_heads: int, hidden_dim: int, causal: bool = True) -> None:
        super().__init__()
        self.causal = causal
        self.norm1 = nn.LayerNorm(dim)
        self.attn = MultiHeadAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)  # new: from here on
        self.cross_attn = MultiHeadAttention(dim, num_heads)
        self.norm3 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, hidden_dim, activation="relu", dropout=0.0)

    def forward(self, x: Tensor, cells: Tensor, p: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        words = self.norm1(x)
        x = x + self.attn(words + p, value=words, is_causal=self.causal)[0]  # (B, T, D)
        attended, weights = self.cross_attn(
            self.norm2(x) + p, key=cells + c, value=cells, need_weights=True
        )
        x = x + attended  # (B, T, D)
        return x + self.mlp(self.norm3(x)), weights  # (B, T, D), (B, H, T, M)


config = captioner.config
trained = captioner.decoder[0]
v3 = BlockV3(config.dim, config.num_heads, config.hidden_dim)
v3.load_state_dict(trained.state_dict())  # the names are the same

words = torch.randn(1, 5, config.dim)
position = captioner.pos_embed[:, :5]
ours, weights = v3(words, memory.tokens, position, memory.position)
theirs, (_, their_weights) = trained(
    words,
    memory.tokens,
    position=position,
    memory_position=memory.position,
    need_weights=True,
)
assert isinstance(trained, DecoderBlock)
torch.testing.assert_close(ours, theirs)
torch.testing.assert_close(weights, their_weights)
torch.testing.assert_close(weights.sum(dim=-1), torch.ones(1, config.num_heads, 5))
print("weights:", tuple(weights.shape), "(B, H, T, M); each row sums to 1 over the cells")
print("v3 with the trained weights is minivit.decoder.DecoderBlock")

# %% [markdown]
# ## Teacher forcing
#
# The probability of a sentence is a product, one factor a word:
#
# $$p(w_1 \dots w_T \mid \text{picture}) = \prod_{t} p(w_t \mid w_0 \dots w_{t-1}, \text{picture})$$
#
# In training the words before are the *true* ones, not those that the model would have written.
# Then all factors come out of one pass: the decoder reads `tokens[:, :-1]` and is asked for
# `tokens[:, 1:]`.
#
# **Before you run it:** for a caption of 20 words with the end token, how many passes does it save,
# and how far apart are the logits?

# %%
read, asked = tokens[:, :-1], tokens[:, 1:]  # (1, T - 1) each
at_once, _, _ = captioner.decode(read, memory)  # one pass
one_by_one = torch.stack(
    [captioner.decode(read[:, : t + 1], memory)[0][:, -1] for t in range(read.shape[1])], dim=1
)  # a pass for each word
apart = float((at_once - one_by_one).abs().max())
assert apart < 1e-4
print(f"1 pass or {read.shape[1]} passes: logits at most {apart:.1e} apart")
lines = ["| row | reads | is asked for | p |", "| --- | --- | --- | --- |"]
chances = at_once.softmax(dim=-1).gather(2, asked[..., None])[0, :, 0]  # (T - 1,)
for row, (now, then, p) in enumerate(zip(read[0], asked[0], chances, strict=True)):
    pair = f"{tokenizer.vocabulary[now]} | {tokenizer.vocabulary[then]}".replace("<", "\\<")
    lines.append(f"| {row} | {pair} | {p:.2f} |")
Markdown("\n".join(lines))

# %% [markdown]
# Row i is asked for token i + 1. The row that *reads* a word and the row that *predicts* it are two
# rows; lesson 9 shows what happens to a map when they are mixed up.

# %% [markdown]
# ## Exercise 8.2: the loss
#
# Sentences of a batch have different lengths, and the shorter ones are filled up with `pad_id`.
# Write the loss: the mean of −log p(next word) over all words of the batch that are no padding. You
# get the logits (B, T, V) of *all* T rows (the last one has no next word), the tokens (B, T), the
# start token first, and `pad_id`, which need not be 0.


# %% exercise="8.2" tags=["stub"]
def sentence_loss(logits: Tensor, tokens: Tensor, pad_id: int) -> Tensor:
    """Mean cross-entropy of the next words: (B, T, V), (B, T) -> ()."""
    ...


check_sentence_loss(sentence_loss)

# %% [markdown] exercise="8.2" tags=["hint"]
# <details><summary>Hint</summary>
#
# The last row predicts a word that is not there, and nobody predicts the start token: cut one row
# of the logits and one of the tokens. `F.cross_entropy` takes (n, V) and (n,), and has an argument
# for targets that do not count.
#
# </details>

# %% [markdown] exercise="8.2" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def sentence_loss(logits: Tensor, tokens: Tensor, pad_id: int) -> Tensor:
#     return torch.nn.functional.cross_entropy(
#         logits[:, :-1].flatten(0, 1),  # (B, T - 1, V) -> (B·(T - 1), V)
#         tokens[:, 1:].flatten(),  # (B, T - 1) -> (B·(T - 1),)
#         ignore_index=pad_id,
#     )
# ```
#
# </details>

# %% [markdown]
# ## What the mask is for, seen in training
#
# Two small captioners learn on 300 scenes behind the memory of the trained one, with the same start
# and the same batches. One has the causal mask, the other has not.
#
# **Before you run it:** which one has the lower loss after 70 steps? Which one writes sentences?


# %%
class SmallCaptioner(nn.Module):
    """One block of v3 between an embedding and a linear head."""

    def __init__(self, causal: bool, dim: int = 128, length: int = 30) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(tokenizer), dim)
        self.position = nn.Parameter(0.3 * torch.randn(1, length, dim))
        self.block = BlockV3(dim, 4, 2 * dim, causal)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, len(tokenizer))
        nn.init.normal_(self.embed.weight, std=0.3)

    def forward(self, words: Tensor, cells: Tensor, c: Tensor) -> Tensor:
        p = self.position[:, : words.shape[1]]  # (1, T, D)
        x, _ = self.block(self.embed(words) + p, cells, p, c)  # (B, T) -> (B, T, D)
        return self.head(self.norm(x))  # (B, T, D) -> (B, T, V)


learned = [make_scene(0, index) for index in range(300)]
learned_memory = captioner.encode_photos([each.image for each in learned])
learned_tokens = decoder_input(
    [[*tokenizer.encode(each.caption), tokenizer.end_id] for each in learned], tokenizer
)


def train(causal: bool, steps: int = 70) -> tuple[SmallCaptioner, list[float]]:
    torch.manual_seed(0)
    model, losses = SmallCaptioner(causal), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        batch = torch.randint(len(learned), (24,))
        words = learned_tokens[batch]
        with torch.enable_grad():
            logits = model(words[:, :-1], learned_memory.tokens[batch], learned_memory.position)
            count = int((words[:, 1:] != tokenizer.pad_id).sum())
            loss = caption_loss(logits, words[:, 1:], tokenizer.pad_id) / count
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return model.eval(), losses


masked, masked_losses = train(causal=True)
unmasked, unmasked_losses = train(causal=False)

figure, ax = plt.subplots(figsize=(6.0, 3.0), layout="constrained")
ax.plot(masked_losses, label="with causal mask")
ax.plot(unmasked_losses, label="without mask")
ax.axhline(math.log(len(tokenizer)), color="grey", linestyle=":", label="all words alike: log V")
ax.set(xlabel="step", ylabel="loss (nats a word)", yscale="log", title="teacher forcing")
ax.legend()
plt.show()


# %%
def write(model: nn.Module, cells: Tensor, c: Tensor, most: int = 24) -> str:
    """A sentence, word by word, each the likeliest after those before it."""
    words = torch.tensor([[tokenizer.start_id]])
    while words.shape[1] < most and words[0, -1] != tokenizer.end_id:
        best = model(words, cells, c)[:, -1].argmax(dim=-1, keepdim=True)  # (1, T, V) -> (1, 1)
        words = torch.cat([words, best], dim=1)
    return tokenizer.decode(words[0].tolist())


for index in (0, 2, 4):
    cells = learned_memory.tokens[index : index + 1]
    print("true:        ", learned[index].caption)
    print("with mask:   ", write(masked, cells, learned_memory.position))
    print("without mask:", write(unmasked, cells, learned_memory.position), "\n")

final = [sum(losses[-5:]) / 5 for losses in (masked_losses, unmasked_losses)]
print(f"loss of the last five steps: {final[0]:.3f} with the mask, {final[1]:.3f} without")
assert final[1] < final[0] / 5
before = sum(masked_losses[-25:-20]) / 5
print(f"with the mask, twenty steps before: {before:.3f}")
assert final[0] < 0.9 * before  # still falling

# %% [markdown]
# Without a mask the loss falls almost to nothing, and the model cannot write: it has learned to
# copy word i + 1 out of its own input. A loss that is too good to be true is the mark of this
# fault. With the mask the loss is still falling after 70 steps, and it cannot fall as fast: the
# next word has to be guessed. The sentences are sentences (that they are true takes more training
# than this).
#
# ## What a probability says
#
# Which words are hard to guess? Look at the trained captioner's probabilities of a true caption.

# %%
shown_words = [tokenizer.vocabulary[token] for token in asked[0]]
figure, ax = plt.subplots(figsize=(8.0, 2.9), layout="constrained")
ax.bar(range(len(shown_words)), chances, color="#3b6fb6")
ax.set(ylabel="p(word | words before, picture)", ylim=(0, 1.05))
ax.set_xticks(range(len(shown_words)), shown_words, rotation=60, ha="right", fontsize=8)
ax.set_title(f"teacher forcing: {len(scene.objects)} objects", fontsize=10)
plt.show()

three = [each for each in scenes if len(each.objects) == 3]
starts = decoder_input([tokenizer.encode("a")] * len(three), tokenizer)  # (B, 2): <start> a
first_logits, _, _ = captioner.decode(
    starts, captioner.encode_photos([each.image for each in three])
)
(small,) = tokenizer.encode("small")
p_small = first_logits[:, 1].softmax(dim=-1)[:, small]  # (B, 2, V) -> (B,); row 1 reads "a"
print(f"{len(three)} scenes of three objects: p('small' after 'a') is {p_small.mean():.2f}")
assert abs(float(p_small.mean()) - 2 / 3) < 0.05

# %% [markdown]
# Low bars are choices of the speaker, not doubts about the picture. Captions name the objects in a
# random order; in a scene of three, two are small and one is large, so "small" has 2/3. Two small
# ones are left: their colours have about half each. Once the colour is said, the shape is certain.
# The relation can be said in several ways ("under", "below", "is beneath" …), and the probability
# is shared among them.
#
# ## Greedy search, and where it goes wrong
#
# Greedy search takes the likeliest word at every step. The loop is short, and it is the library's
# own with one beam:

# %%
few = scenes[:8]
few_memory = captioner.encode_photos([each.image for each in few])


def greedy(memory, most: int = 30) -> Tensor:
    """(B, T) words: the likeliest after those before it, all computed anew at each step."""
    words = torch.full((len(memory.tokens), 1), tokenizer.start_id)
    ended = torch.zeros(len(words), dtype=torch.bool)
    while words.shape[1] < most and not ended.all():
        logits, _, _ = captioner.decode(words, memory)  # (B, T, V)
        best = logits[:, -1].argmax(dim=-1)  # (B, T, V) -> (B,)
        words = torch.cat([words, best[:, None]], dim=1)
        ended |= best == tokenizer.end_id
    return words


library = generate(captioner.next_words(few_memory), beam_size=1)
for own, (sentence_of_library,) in zip(greedy(few_memory).tolist(), library, strict=True):
    own = own[1:]  # without the start token
    own = own[: own.index(tokenizer.end_id)]
    assert own == sentence_of_library.token_ids
print("the loop and minivit.generation.generate with one beam: the same words, 8 scenes of 8")

# %% [markdown]
# Greedy search can miss the likeliest sentence, since a likely word may lead to unlikely ones. A
# table of three words is enough to see it:

# %%
first = {"a": 0.6, "the": 0.4}
second = {"a": {"cat": 0.4, "dog": 0.35, "cup": 0.25}, "the": {"cat": 0.9, "dog": 0.1}}
likely = {(one, two): p * q for one, p in first.items() for two, q in second[one].items()}
by_greed = max(first, key=first.get)
by_greed = (by_greed, max(second[by_greed], key=second[by_greed].get))
best = max(likely, key=likely.get)
for pair, p in sorted(likely.items(), key=lambda item: -item[1]):
    mark = "  <- greedy" if pair == by_greed else ""
    print(f"{' '.join(pair):8} {p:.2f}{mark}")
assert best == ("the", "cat") and by_greed == ("a", "cat")
followed = sorted(first, key=first.get)[-2:]  # the two likeliest first words
assert best == max((pair for pair in likely if pair[0] in followed), key=likely.get)

# %% [markdown]
# Beam search follows K sentences at a time. At every step each of them is continued by all V words,
# and of the K·V sentences the K likeliest go on. It finds "the cat" with K = 2.

# %% [markdown]
# ## Exercise 8.3: one step of a beam search
#
# You get the scores of K beams, (K,), each the sum of the log-probabilities of its words so far,
# and the log-probabilities (K, V) of the next word of each. Give the K best of all K·V
# continuations, the best first, as three tensors (K,): their totals, the number of the beam that
# each continues, and the number of its new word.


# %% exercise="8.3" tags=["stub"]
def beam_step(scores: Tensor, log_probs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Totals, beams, words, (K,) each: (K,), (K, V) -> the K best continuations."""
    ...


check_beam_step(beam_step)

# %% [markdown] exercise="8.3" tags=["hint"]
# <details><summary>Hint</summary>
#
# Add the scores as a column, flatten to K·V numbers, and take `topk`. A place in the flat list is
# beam · V + word: `//` and `%` bring both back.
#
# </details>

# %% [markdown] exercise="8.3" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def beam_step(scores: Tensor, log_probs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
#     num_beams, num_words = log_probs.shape
#     totals = scores[:, None] + log_probs  # (K, 1) + (K, V) -> (K, V)
#     best, place = totals.flatten().topk(num_beams)  # (K, V) -> (K·V,) -> (K,)
#     return best, place // num_words, place % num_words
# ```
#
# </details>

# %% [markdown]
# `minivit.generation.Beams.rank` is this step for B pictures at once. The rest of the search is
# book-keeping: sentences that end are taken out and kept, and the search is over when no unfinished
# one promises more. The score of a sentence is its sum divided by length^α, where α is
# `length_penalty`: 0 compares sums, 1 compares means.
#
# **Before you run it:** is a likelier sentence a truer one? Scenes know their objects, so it can be
# counted. The rows: greedy, and four beams with both penalties.

# %%
memories = captioner.encode_photos([each.image for each in scenes])
settings = [(1, 1.0), (4, 0.0), (4, 1.0)]
results = {}
for beams, penalty in settings:
    ranked = generate(captioner.next_words(memories), beam_size=beams, length_penalty=penalty)
    results[beams, penalty] = [best for best, *_ in ranked]
greedy_sums = torch.tensor([sum(s.log_probs) for s in results[1, 1.0]])
lengths = {}
lines = [
    "| beams | α | mean log p of a sentence | likelier than greedy | less likely | words | "
    "relations true | captions true as a whole |",
    "| --- | --- | --- | --- | --- | --- | --- | --- |",
]
for (beams, penalty), best in results.items():
    sums = torch.tensor([sum(s.log_probs) for s in best])
    likelier = int((sums > greedy_sums + 1e-4).sum())
    less = int((sums < greedy_sums - 1e-4).sum())
    length = lengths[beams, penalty] = sum(len(s.token_ids) for s in best) / len(best)
    truth = scene_scores([tokenizer.decode(s.token_ids) for s in best], scenes)
    alpha = "–" if beams == 1 else f"{penalty:.0f}"  # no other sentence to compare lengths with
    counts = "– | –" if beams == 1 else f"{likelier} of 100 | {less} of 100"
    lines.append(
        f"| {beams} | {alpha} | {sums.mean():.2f} | {counts} | {length:.1f} | "
        f"{truth['relations']:.1%} | {truth['whole']:.1%} |"
    )
    if (beams, penalty) == (4, 0.0):
        assert likelier > 5 * less
    if (beams, penalty) == (4, 1.0):
        assert less > 20  # by its sum: what is best is another quantity
        assert length > lengths[1, 1.0] + 1
Markdown("\n".join(lines))

# %%
greedy_truth, beam_truth = (
    [
        scene_scores([tokenizer.decode(s.token_ids)], [one])["whole"] == 1
        for s, one in zip(results[key], scenes, strict=True)
    ]
    for key in ((1, 1.0), (4, 1.0))
)
won = sum(b and not g for g, b in zip(greedy_truth, beam_truth, strict=True))
lost = sum(g and not b for g, b in zip(greedy_truth, beam_truth, strict=True))
print(f"four beams, α = 1, against greedy: {won} captions became true, {lost} became false")
assert won <= lost < won + 6  # no gain in truth, and no clear loss
both = zip(results[1, 1.0], results[4, 1.0], scenes, strict=True)
for own, other, _ in [each for each in both if each[0].token_ids != each[1].token_ids][:2]:
    print()
    print(f"greedy {sum(own.log_probs):6.2f}:", tokenizer.decode(own.token_ids))
    print(f"beams  {sum(other.log_probs):6.2f}:", tokenizer.decode(other.token_ids))

# %% [markdown]
# Three things to take along. With α = 0 beams find likelier sentences, as they should; they may
# still lose one that greedy search finds, because a beam that falls out never comes back. With α =
# 1 another quantity is best, the mean of a word, and long sentences win it: their many certain
# words lift the mean. And a likelier sentence is not a truer one. The search makes captions no
# truer here: 3 became true and 6 false, too few to say that it makes them worse.
#
# ## Keys and values, kept
#
# The loop above computes all words anew at every step. Under the causal mask none of it has
# changed: keys and values of earlier words are what they were, and those of the cells too. So each
# block keeps them, and a step computes one query, one key and one value.
#
# **Before you run it:** how many rows go through a decoder block until 29 words are written, with
# and without a cache?


# %%
class Anew:
    """What `generate` asks for, without a cache: it reads the whole sentence at every step."""

    def __init__(self, memory) -> None:
        self.memory, self.words = memory, None
        self.num_pictures, self.device = len(memory.tokens), memory.tokens.device
        self.start_id, self.end_id = tokenizer.start_id, tokenizer.end_id
        self.vocabulary_size, self.max_length = len(tokenizer), config.max_length

    def logits(self, last_words: Tensor) -> Tensor:
        new = last_words[:, None]  # (R,) -> (R, 1)
        self.words = new if self.words is None else torch.cat([self.words, new], dim=1)
        return captioner.decode(self.words, self.memory)[0][:, -1]  # (R, T, V) -> (R, V)

    def reorder(self, index: Tensor) -> None:
        self.words = self.words[index]


def count_rows(next_words, steps: int = 29) -> int:
    """Rows that go through the first decoder block while 29 words are written."""
    rows = []
    hook = captioner.decoder[0].mlp.register_forward_hook(
        lambda module, inputs, output: rows.append(output.shape[1])
    )
    for _ in range(steps):
        next_words.logits(torch.full((1,), tokenizer.start_id))
    hook.remove()
    return sum(rows)


rows_anew, rows_kept = count_rows(Anew(memory)), count_rows(captioner.next_words(memory))
print(f"rows for 29 words: {rows_anew} anew, {rows_kept} with a cache")
assert rows_anew == 29 * 30 // 2 and rows_kept == 29

# %% [markdown]
# ## Exercise 8.4: attention with a cache
#
# Write one step. You get the query, key and value of the new word, (B, H, 1, d) each, and the
# cache: `None` at the first word, then the pair (keys, values), (B, H, t, d) each. Give the output
# (B, H, 1, d) and the new cache. You may use `F.scaled_dot_product_attention`, or the equation.


# %% exercise="8.4" tags=["stub"]
def cached_step(
    query: Tensor, key: Tensor, value: Tensor, cache: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The output (B, H, 1, d) of one new word, and the cache with that word in it."""
    ...


check_cached_step(cached_step)

# %% [markdown] exercise="8.4" tags=["hint"]
# <details><summary>Hint</summary>
#
# First append (`torch.cat` along the dimension of words), then attend to all of the cache. The new
# word is the last one: which keys are later than it, and so which mask does it need?
#
# </details>

# %% [markdown] exercise="8.4" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def cached_step(
#     query: Tensor, key: Tensor, value: Tensor, cache: tuple[Tensor, Tensor] | None
# ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
#     if cache is not None:
#         key = torch.cat([cache[0], key], dim=2)  # (B, H, t, d) -> (B, H, t + 1, d)
#         value = torch.cat([cache[1], value], dim=2)
#     scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])  # (B, H, 1, t + 1)
#     return scores.softmax(dim=-1) @ value, (key, value)
# ```
#
# </details>

# %% [markdown]
# ## Proof that nothing changed but time
#
# Three tests, the strictest first: the logits of every step; the sentences of 50 scenes, greedy;
# and those of 20 with four beams, where the cache must follow the beams.

# %%
kept, anew = captioner.next_words(memory), Anew(memory)
apart = max(
    float((kept.logits(token[None]) - anew.logits(token[None])).abs().max()) for token in tokens[0]
)
print(f"logits of {tokens.shape[1]} steps: at most {apart:.1e} apart")
assert apart < 1e-4

for beams in (1, 4):
    chosen = memories._replace(tokens=memories.tokens[: 50 if beams == 1 else 20])
    ours = generate(Anew(chosen), beam_size=beams)
    theirs = generate(captioner.next_words(chosen), beam_size=beams)
    same = sum(
        [s.token_ids for s in one] == [s.token_ids for s in two]
        for one, two in zip(ours, theirs, strict=True)
    )
    print(f"{beams} beam{'s' * (beams > 1)}: the same sentences for {same} of {len(ours)} scenes")
    assert same == len(ours)

# %% [markdown]
# The cache of a beam search has one more duty. When beam 2 goes on from what beam 0 has written, it
# needs the keys of beam 0: `reorder`. If that is forgotten, no error is raised. A search can be
# caught at it: score its sentence again by teacher forcing, and compare with what the search says.


# %%
def rescored(sentence, memory) -> float:
    """Log-probability of a sentence by teacher forcing, without any cache."""
    words = [*sentence.token_ids, tokenizer.end_id]
    read = decoder_input([words], tokenizer)  # (1, T)
    logits, _, _ = captioner.decode(read[:, :-1], memory)
    return float(F.log_softmax(logits, dim=-1).gather(2, read[:, 1:, None]).sum())


twelve = memories._replace(tokens=memories.tokens[:12])
forgetful = captioner.next_words(twelve)
forgetful.reorder = lambda index: None  # the fault
searches = {
    "with reorder": generate(captioner.next_words(twelve), beam_size=4),
    "reorder forgotten": generate(forgetful, beam_size=4),
}
worst = {}
for name, ranked in searches.items():
    gaps = [
        abs(sum(best.log_probs) - rescored(best, twelve._replace(tokens=twelve.tokens[i : i + 1])))
        for i, (best, *_) in enumerate(ranked)
        if best.ended
    ]
    worst[name] = max(gaps)
    wrong = sum(gap > 1e-3 for gap in gaps)
    print(f"{name}: {wrong} of {len(gaps)} sentences have another log-probability than the search")
    print(f"  says; the largest difference is {max(gaps):.6f}. The sentence for the scene above:")
    print(" ", tokenizer.decode(ranked[1][0].token_ids))
assert worst["with reorder"] < 1e-3 < worst["reorder forgotten"]

# %% [markdown]
# ## And the time
#
# The same 29 steps for 32 sentences, on this machine, in time of the processor (other programs then
# do not count). Numbers change from run to run; the form does not: without a cache a step takes
# longer the more words there are.


# %%
def step_times(make, number: int, repeats: int = 2) -> Tensor:
    """(29,) processor time of each step in ms for some sentences, the least of some runs."""
    pictures = memories._replace(tokens=memories.tokens[:number])
    runs = []
    for _ in range(repeats):
        next_words, times = make(pictures), []
        for _ in range(29):
            start = time.process_time()
            next_words.logits(torch.full((number,), 4))
            times.append(1000 * (time.process_time() - start))
        runs.append(times)
    return torch.tensor(runs).min(dim=0).values  # (runs, 29) -> (29,)


time_anew, time_kept = step_times(Anew, 32), step_times(captioner.next_words, 32)
figure, ax = plt.subplots(figsize=(6.0, 3.0), layout="constrained")
ax.plot(range(1, 30), time_anew, label="all words anew")
ax.plot(range(1, 30), time_kept, label="keys and values kept")
ax.set(
    xlabel="words so far", ylabel="processor time of the step (ms)", title="32 sentences at a time"
)
ax.set_ylim(bottom=0)
ax.legend()
plt.show()
one_anew, one_kept = step_times(Anew, 1), step_times(captioner.next_words, 1)
for number, anew, kept in ((32, time_anew, time_kept), (1, one_anew, one_kept)):
    print(f"{number:2} sentences of 29 words: {anew.sum():.0f} ms anew, {kept.sum():.0f} ms with a "
          f"cache, {anew.sum() / kept.sum():.1f} times as fast")  # fmt: skip

# %% [markdown]
# The first step with a cache is no faster: keys and values of the cells are made there. For one
# sentence of this small model the fixed price of a call is most of a step, cache or no cache. The
# gain grows with the number of words, and a sentence of CATR, a public captioner that minivit can
# load, has up to 128.
#
# What the cache costs is memory: 2 · blocks · T · D numbers for the words of a sentence and
# 2 · blocks · M · D for the cells of a picture.

# %%
words_kept = 2 * config.decoder_depth * config.max_length * config.dim * 4
cells_kept = 2 * config.decoder_depth * memory.tokens.shape[1] * config.dim * 4
print(f"one sentence: {words_kept / 1024:.0f} KiB for words, {cells_kept / 1024:.0f} KiB for cells")
caches = captioner.new_cache(1, 1, memory)
size = sum(4 * part._keys.numel() * 2 for cache in caches for part in cache)
assert size == words_kept + cells_kept

# %% [markdown]
# ## Exercise 8.5: what does the picture tell?
#
# A word can be guessed from the words before it. How much does the picture add? Let the decoder
# read true captions with the memory of *another* picture and see how much less likely each kind of
# word becomes:
#
# gain = mean of log p(word | words before, own picture) − log p(word | words before, other picture)
#
# Take scenes 0 to 39 of `TEST_SEED` and their captions; the other picture of scene i is scene i +
# 1, that of the last one is scene 0. Give the gain in nats for words of size, colour and shape:
# `{"size": …, "colour": …, "shape": …}`. The words of each kind stand in
# `minivit.training.caption.grounding.KINDS`. Each gain is one mean over all places where such a
# word stands, second mentions too, all scenes together. Guess the order before you compute.

# %% exercise="8.5" tags=["stub"]
gain = ...

check_picture_gain(gain)

# %% [markdown] exercise="8.5" tags=["hint"]
# <details><summary>Hint</summary>
#
# `captioner.encode_photos` gives the memory of 40 pictures at once;
# `memory._replace(tokens=memory.tokens.roll(-1, dims=0))` gives scene i the cells of scene i + 1.
# One pass of `captioner.decode` with each of the two, `log_softmax`, and `gather` of the words
# that were asked for. Then take the mean over the places where such a word stands.
#
# </details>

# %% [markdown] exercise="8.5" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# from minivit.data.scenes.dataset import TEST_SEED, make_scene
# from minivit.training.caption.grounding import KINDS
# from minivit.word_maps import decoder_input
#
# captioner = minivit.load_model("scenes_captioner")
# tokenizer = captioner.tokenizer
# forty = [make_scene(TEST_SEED, index) for index in range(40)]
# with torch.no_grad():
#     own = captioner.encode_photos([scene.image for scene in forty])
#     other = own._replace(tokens=own.tokens.roll(-1, dims=0))
#     true = [[*tokenizer.encode(scene.caption), tokenizer.end_id] for scene in forty]
#     words = decoder_input(true, tokenizer)  # (B, T)
#     log_p = [
#         captioner.decode(words[:, :-1], memory)[0].log_softmax(-1).gather(2, words[:, 1:, None])
#         for memory in (own, other)
#     ]
# difference = (log_p[0] - log_p[1])[..., 0]  # (B, T - 1)
# gain = {}
# for kind, names in KINDS.items():
#     is_kind = torch.tensor([word in names for word in tokenizer.vocabulary])
#     gain[kind] = float(difference[is_kind[words[:, 1:]]].mean())
# ```
#
# The order is colour (15.2), shape (9.1), size (1.3). A wrong picture does worse than none, since
# the decoder is *sure* of the wrong word: eight colours at chance would be log 8 = 2.1 nats. The
# size is one of two words, and the other picture has the true one at 84 % of the places, the true
# shape at 31 % and the true colour at 20 %. A shape also comes after the true colour: if that does
# not fit the other picture, the decoder is less sure of a wrong shape than of a wrong colour.
#
# </details>

# %% [markdown]
# ## Questions
#
# **1.** Why may keys and values of *words* be kept although each new word changes the sentence, and
# why could a decoder without a causal mask not keep them?
#
# <details><summary>Answer</summary>
#
# Under the mask row i depends on words 0 to i alone, in every block. A new word comes after all of
# them, so nothing that was computed for them changes. Without the mask each new word would change
# the output of every earlier row, hence the keys and values of the next block, and all would have
# to be made again.
#
# </details>
#
# **2.** In teacher forcing the words before are true, when writing they are the model's own. What
# can go wrong, and where does the table of beams show a trace of it?
#
# <details><summary>Answer</summary>
#
# The model has never been trained on sentences with its own mistakes: after a wrong word it goes on
# from a place that training did not show (exposure bias). The probability that it gives to its own
# sentence then says how usual the sentence is after those words, not how true it is. In the table
# the likelier sentences are not the truer ones.
#
# </details>
#
# **3.** Queries of cross-attention are words and keys are cells. Why is there no mask, and when
# would there have to be one?
#
# <details><summary>Answer</summary>
#
# The whole picture is there before the first word, so every word may look at every cell. A mask is
# needed when pictures of several sizes are padded to one grid: then cells without picture are
# hidden (`memory_mask`, True = a real cell).
#
# </details>

# %% [markdown]
# ## What people get wrong
#
# - **No mask in training.** A public decoder for PyTorch came without a way to pass the mask; a
#   user who trained with it got a model that was very bad at writing
#   (alex-matton/causal-transformer-decoder, issue 1). The loss looks excellent, as above.
# - **Targets not shifted.** The decoder reads "giraffes" and is asked for "giraffes". The loss goes
#   to 0 and the model repeats what it is given; asked about in yunjey/pytorch-tutorial, issue 172.
#   Check 8.2 names it.
# - **`is_causal=True` beside a cache.** torch aligns the triangle at the upper left: with 3 queries
#   and 5 keys the first query sees one key (measured with torch 2.13.0 and 2.14.1, CPU), and
#   a single new word sees only the very first. minivit aligns at the lower right: the last query
#   sees the last key.
# - **A cache that does not follow the beams.** transformers, issue 46612 (2026): beam search
#   reordered only caches of one name, and models that call theirs otherwise wrote wrong sentences
#   without an error. Rescoring by teacher forcing finds it.
# - **Padding as words to learn.** CATR's loss (saahiluppal/catr) counts the padding up to 128
#   words, about nine tenths of its targets: most of the gradient teaches that padding follows
#   padding.
# - **Masks with the other sign.** torch's `nn.MultiheadAttention` has True = hidden, its
#   `scaled_dot_product_attention` and minivit have True = may attend. The shapes agree, so nothing
#   is raised; the picture of who feels whom shows an upper triangle.

# %% [markdown]
# ## Sources
#
# - Vaswani et al. 2017, "Attention Is All You Need", arXiv:1706.03762: encoder, decoder, masks
# - Carion et al. 2020, "End-to-End Object Detection with Transformers", arXiv:2005.12872: positions
#   on queries and keys of every attention
# - Xu et al. 2015, "Show, Attend and Tell", arXiv:1502.03044: a sentence that looks at a picture
# - Vinyals et al. 2015, "Show and Tell", arXiv:1411.4555: captions by teacher forcing and beams
# - Bengio et al. 2015, "Scheduled Sampling for Sequence Prediction with Recurrent Neural Networks",
#   arXiv:1506.03099: the gap between training and writing
# - Wu et al. 2016, "Google's Neural Machine Translation System", arXiv:1609.08144: length
#   normalisation of beams
# - Stahlberg and Byrne 2019, "On NMT Search Errors and Model Errors", arXiv:1908.10090: the
#   likeliest sentence is often not the best one
# - Code: `minivit/decoder.py`, `minivit/captioner.py`, `minivit/generation.py`
