# %% [markdown]
# # 5. Training and fine-tuning
#
# Two recipes for 37 breeds of cats and dogs, repeated in small: the same loop, the same optimizers,
# with drawn scenes in the place of photos. You see why Adam at 0.01 destroys a trained model while
# SGD at 0.01 does not, what augmentation may and may not do, why turned pictures make rings of the
# position embeddings, and how a model moves to a higher resolution.
#
# 45 minutes to read, half a minute to run on two cores. Before it: lessons 1, 2 and 4.

# %% tags=["imports"]
import copy
import dataclasses
import math
import time

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from einops import rearrange
from IPython.display import display
from PIL import ImageOps
from torch import Tensor

import minivit
from minivit import VisionTransformer, ViTConfig
from minivit.data.augmentation.pipeline import CutMix, MixUp
from minivit.data.loading import load_all
from minivit.data.scenes.dataset import (
    CLASS_NAMES,
    VALIDATION_SEED,
    ScenesDataset,
    make_scene,
)
from minivit.data.seeds import sample_rng
from minivit.explain import position_scores, position_similarity
from minivit.training.classify.data import ImageBatch, LabelledImages, make_augmentation, turn
from minivit.training.classify.model import make_classifier
from minivit.training.classify.task import ClassificationTask
from minivit.training.distributed import Processes
from minivit.training.loop import Trainer
from minivit.training.optimizers import make_optimizers
from minivit.training.recipe_toml import FOLDER, read_recipe
from minivit.training.recipes import ClassifyRecipe
from minivit.training.settings import Settings, lr_fraction
from minivit.training.task import Epoch
from minivit.viz import comparison_figure
from minivit.viz.position_figures import draw_tiles, position_tiles
from tutorials.checks import (
    check_adam_step,
    check_alike_under_turns,
    check_mirrored,
    check_rate,
    check_rescued,
)

plt.rcParams["figure.dpi"] = 90
torch.set_num_threads(1)  # pictures this small are computed fastest by one core

# %% [markdown]
# ## The two recipes
#
# A recipe of minivit is a TOML file whose first lines are its lab notes. These are the notes of the
# two recipes for pets, and then what each says about the step.

# %%
for name in ("pets_sgd", "pets_adam_sgd"):
    lines = (FOLDER / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    notes = [line for line in lines if line.startswith("# ")]
    more = [line for line in notes if "5.41" in line or "198 steps" in line]
    print(f"--- {name}.toml", *notes[:5], *more, sep="\n")
    table = read_recipe(name)
    print("image_size", table["image_size"], "  batch_size", table["batch_size"])
    for phase in table.get("phases", [table]):
        shown = ("optimizer", "lr", "epochs", "momentum", "schedule", "lr_drop", "warmup_share")
        print("   ", {key: phase[key] for key in shown if key in phase})

# %% [markdown]
# Both numbers, 94.67 % and 94.4 %, were reported by others. Weights and photos for them are not
# part of minivit, so that no run here repeats them. What can be repeated is the choice of the
# optimizer and its rate. Our experiment differs from the recipes in this:
#
# | | the recipes | here |
# | --- | --- | --- |
# | start | ViT-S/16 or B/16, trained on photos | the shipped ViT of scenes, 4 blocks of width 96 |
# | pictures | 3,680 photos, 384 pixels, 24 × 24 patches | 240 scenes, 48 pixels, 6 × 6 patches |
# | classes | 37 breeds | 48 (6 shapes × 8 colours), under a new head |
# | steps | 2,760 of 8 photos | 120 of 8 scenes |
# | augmentation | crop, mirror, turn, brightness | none (it has a section of its own) |
#
# As in the recipes, each class has few pictures (here fewer still, 1 to 9), and the features are
# nearly good enough already:
# the shipped ViT learned these classes at 96 pixels. Its head is thrown away and begins at zero,
# and it has never seen a picture of 48 pixels.

# %%
start = minivit.load_model("scenes")


def draw(seed: int, count: int, size: int) -> tuple[Tensor, Tensor]:
    """Scenes (count, 3, size, size) uint8, and their classes (count,)."""
    images, labels = load_all(ScenesDataset(seed, count, image_size=size))
    return images, labels


train_images, train_labels = draw(7, 240, 48)
val_images, val_labels = draw(VALIDATION_SEED, 200, 48)

figure, axes = plt.subplots(1, 6, figsize=(8, 1.9), layout="constrained")
for panel, image, label in zip(axes, train_images, train_labels, strict=False):
    picture = rearrange(image, "c h w -> h w c")  # (3, 48, 48) -> (48, 48, 3)
    panel.imshow(picture, interpolation="nearest")
    panel.set_title(CLASS_NAMES[label], fontsize=9)
    panel.set_axis_off()
figure.suptitle("Six of the 240 training scenes, 48 × 48 pixels", fontsize=10)
plt.show()

counts = train_labels.bincount(minlength=48)
print(f"scenes a class: {counts.min()} to {counts.max()}; chance {100 / 48:.1f} %")

# %% [markdown]
# ## What one step does
#
# Three rules, each a change of the one before. $g$ is the gradient of a weight, $\eta$ the rate.
#
# $$\text{v1, SGD:}\quad w \leftarrow w - \eta\, g$$
# $$\text{v2, momentum:}\quad b \leftarrow 0.9\, b + g, \qquad w \leftarrow w - \eta\, b$$
# $$\text{v3, Adam:}\quad m \leftarrow 0.9\, m + 0.1\, g, \quad
# v \leftarrow 0.999\, v + 0.001\, g^2, \qquad
# w \leftarrow w - \eta\, \frac{m / (1 - 0.9^t)}{\sqrt{v / (1 - 0.999^t)} + 10^{-8}}$$
#
# $t$ counts the steps from 1. The means $m$ and $v$ begin at 0, so that the first ones are too
# small; the two divisions by $1 - \beta^t$ correct that.
#
# ## Exercise 5.1: a step of Adam
#
# The tensors have one number a weight and all have the same shape. Return three of that shape: the
# change that is *added* to the weights, the new mean of gradients, the new mean of their squares.


# %% exercise="5.1" tags=["stub"]
def adam_step(
    gradient: Tensor, mean: Tensor, square: Tensor, step: int, lr: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(change, new mean, new square), each of the gradient's shape; `step` counts from 1."""
    ...


check_adam_step(adam_step)

# %% [markdown] exercise="5.1" tags=["hint"]
# <details><summary>Hint</summary>
#
# Make new tensors: `mean = 0.9 * mean + ...`, not `mean *= 0.9`. Return the means before the
# correction, and use the corrected ones for the change only.
#
# </details>

# %% [markdown] exercise="5.1" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def adam_step(gradient, mean, square, step, lr):
#     mean = 0.9 * mean + 0.1 * gradient
#     square = 0.999 * square + 0.001 * gradient**2
#     corrected_mean = mean / (1 - 0.9**step)
#     corrected_square = square / (1 - 0.999**step)
#     change = -lr * corrected_mean / (corrected_square.sqrt() + 1e-8)
#     return change, mean, square
# ```
#
# </details>

# %% [markdown]
# The three rules as code, beside those that the training loop uses
# (`minivit.training.optimizers.make_optimizers` takes them from torch).


# %%
def sgd_rule(gradient: Tensor, state: dict, step: int, lr: float) -> Tensor:
    return -lr * gradient


def momentum_rule(gradient: Tensor, state: dict, step: int, lr: float) -> Tensor:
    state["b"] = 0.9 * state.get("b", 0) + gradient  # new: what was done before goes on
    return -lr * state["b"]


def adam_rule(gradient: Tensor, state: dict, step: int, lr: float) -> Tensor:
    state["m"] = 0.9 * state.get("m", 0) + 0.1 * gradient  # new: a mean and not a sum,
    state["v"] = 0.999 * state.get("v", 0) + 0.001 * gradient**2  # new: and one of squares,
    m, v = state["m"] / (1 - 0.9**step), state["v"] / (1 - 0.999**step)
    return -lr * m / (v.sqrt() + 1e-8)  # new: by which the step is divided


def after_steps(rule, count: int = 5) -> Tensor:
    """(7,): weights after some steps down the loss Σ aᵢ wᵢ⁴, whose aᵢ differ a lot."""
    weights, state = torch.linspace(-1, 1, 7), {}
    scales = torch.logspace(-3, 1, 7)
    for step in range(1, count + 1):
        weights = weights + rule(4 * scales * weights**3, state, step, 0.01)
    return weights


def after_library_steps(count: int = 5, **settings) -> Tensor:
    """The same by minivit's optimizers."""
    module = torch.nn.Module()
    module.weights = torch.nn.Parameter(torch.linspace(-1, 1, 7))
    settings = Settings(epochs=1, batch_size=1, lr=0.01, **settings)
    (optimizer,) = make_optimizers(module, settings)
    for _ in range(count):
        optimizer.zero_grad()
        (torch.logspace(-3, 1, 7) * module.weights**4).sum().backward()
        optimizer.step()
    return module.weights.detach()


library = {
    "v1, SGD": (sgd_rule, {"optimizer": "sgd", "momentum": 0.0}),
    "v2, momentum": (momentum_rule, {"optimizer": "sgd", "momentum": 0.9}),
    "v3, Adam": (adam_rule, {"optimizer": "adam"}),
}
for name, (rule, settings) in library.items():
    difference = (after_steps(rule) - after_library_steps(**settings)).abs().max()
    assert difference < 1e-6
    print(f"{name:13} is the library's, to {difference:.0e}")

# %% [markdown]
# In the first step $m/(1-\beta_1) = g$ and $v/(1-\beta_2) = g^2$, so that Adam's change is $-\eta\,
# g/|g|$: the rate itself, up or down, however small the gradient. SGD's change is proportional to
# the gradient.
#
# **Before you run it:** both rules take one step of rate 0.01 from the shipped weights. How large
# is the change beside the weights? What is left of the class token?


# %%
def new_model(size: int = 48) -> VisionTransformer:
    """The shipped ViT for pictures of this size, with a head that begins at zero."""
    recipe = ClassifyRecipe(epochs=1, batch_size=8, lr=1.0, image_size=size, weights="scenes")
    names = [f"{name}, new" for name in CLASS_NAMES]  # other names than the weights': a new head
    model, _ = make_classifier(recipe, names, start)
    return model


@torch.no_grad()
def class_tokens(model: VisionTransformer) -> Tensor:
    """(200, D) of the validation scenes."""
    images = model.preprocess.normalize(val_images)
    return model.encode(images)[:, 0]  # (200, N, D) -> (200, D)


def weights_of(model: VisionTransformer) -> Tensor:
    """All matrices of the blocks as one list."""
    matrices = [p for n, p in model.named_parameters() if n.startswith("blocks") and p.dim() == 2]
    return torch.cat([each.detach().flatten() for each in matrices])


def one_step(**settings) -> tuple[float, float, float]:
    """Mean change, mean size of the weights, and cosine of class tokens before and after."""
    model = new_model()
    # A head of zeros, as training has it, gives the blocks no gradient in the first step.
    torch.nn.init.normal_(model.head.weight, std=0.02, generator=torch.manual_seed(0))
    task, settings = ClassificationTask(model), Settings(epochs=1, batch_size=8, **settings)
    (optimizer,) = make_optimizers(task, settings)
    weights, tokens = weights_of(model), class_tokens(model)
    task(ImageBatch(train_images[:8], train_labels[:8]), settings)[0].div(8).backward()
    optimizer.step()
    change = (weights_of(model) - weights).abs().mean()
    cosine = F.cosine_similarity(class_tokens(model), tokens).mean()
    return change.item(), weights.abs().mean().item(), cosine.item()


steps = {name: one_step(optimizer=name, lr=0.01) for name in ("sgd", "adam")}
print("one step of rate 0.01   mean change   mean weight   class token, cosine to before")
for name, (change, size, cosine) in steps.items():
    print(f"{name:21} {change:13.6f} {size:13.3f} {cosine:19.3f}")
assert steps["adam"][0] > 0.009 and steps["adam"][0] > 20 * steps["sgd"][0]
assert steps["sgd"][2] > 0.99 > 0.9 > steps["adam"][2]

# %% [markdown]
# Adam's first step moves every weight by 0.01, a twelfth of the mean weight. SGD's moves it by
# far less, as the gradients are small. A rate is not a number that one optimizer can take over from
# another.
#
# ## The rate over time
#
# Both recipes change the rate while they train. `pets_sgd` rises linearly for a tenth of its $T$
# steps ($W$ of them), and falls as half a cosine towards 0, which it would reach at
# step T. The steps $s$ count from 0:
#
# $$\frac{\eta_s}{\eta} = \frac{s + 1}{W}\ \ (s < W), \qquad
# \frac{\eta_s}{\eta} = \frac12\left(1 + \cos \pi\, \frac{s - W}{T - W}\right)\ \ (s \ge W)$$
#
# ## Exercise 5.2: the rate
#
# Return the fraction of the highest rate that step `step` of `num_steps` has. `warmup` is $W$ and
# may be 0.


# %% exercise="5.2" tags=["stub"]
def rate(step: int, num_steps: int, warmup: int) -> float:
    """Fraction of the highest rate, 0 to 1; `step` counts from 0."""
    ...


check_rate(rate)

# %% [markdown] exercise="5.2" tags=["hint"]
# <details><summary>Hint</summary>
#
# Two cases, an `if` for the first. In the second the cosine's share is 0 in the first step after
# the warm-up.
#
# </details>

# %% [markdown] exercise="5.2" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def rate(step, num_steps, warmup):
#     if step < warmup:
#         return (step + 1) / warmup
#     share = (step - warmup) / (num_steps - warmup)
#     return 0.5 * (1 + math.cos(math.pi * share))
# ```
#
# </details>

# %%
figure, panel = plt.subplots(figsize=(7, 2.6), layout="constrained")
for name in ("pets_sgd", "pets_adam_sgd"):
    table, rates = read_recipe(name), []
    for phase in table.get("phases", [table]):
        keys = {"epochs", "lr", "optimizer", "schedule", "lr_drop", "warmup_share"} & phase.keys()
        settings = Settings(batch_size=8, **{key: phase[key] for key in keys})
        steps_per_epoch = math.ceil(3680 / 8)
        whole = settings.num_steps(steps_per_epoch)
        rates += [settings.lr * lr_fraction(s, steps_per_epoch, settings) for s in range(whole)]
    panel.plot(rates, label=f"{name}: {len(rates):,} steps")
    if name == "pets_sgd":
        assert len(rates) == 2760
panel.set(xlabel="step of 8 photos", ylabel="rate", yscale="log", ylim=(1e-6, 0.03))
panel.set_title("The rates of the two recipes on 3,680 photos", fontsize=10)
panel.legend(frameon=False, fontsize=8)
panel.grid(alpha=0.3)
plt.show()

# %% [markdown]
# `pets_sgd` is SGD alone. `pets_adam_sgd` is Adam at 1e-4, at 1e-5 from the third epoch on, and
# then SGD at 0.01: the rate jumps a thousandfold, but the optimizer changes too, so the two
# cannot be compared.
#
# ## The experiment
#
# One function trains a new model with given settings; the loop, the task and the optimizers are
# those of `train.py`. Six runs of four epochs:
#
# **Before you run it:** order them by the accuracy that you expect. Does a warm-up rescue Adam at
# 0.01?

# %%
ONE = Processes(rank=0, count=1, device=torch.device("cpu"))


def fine_tune(*phases: Settings, losses: list[float] | None = None) -> list[Epoch]:
    """Figures of each epoch of a training on the 240 scenes."""
    return fine_tuned(*phases, losses=losses)[1]


def fine_tuned(
    *phases: Settings, losses: list[float] | None = None
) -> tuple[VisionTransformer, list[Epoch]]:
    """The trained model, and the figures of each epoch."""
    model = new_model()
    trainer = Trainer(
        ClassificationTask(model),
        LabelledImages(train_images, train_labels),
        LabelledImages(val_images, val_labels),
        phases,
        processes=ONE,
        on_step=None if losses is None else losses.append,
    )
    return model.eval(), list(trainer.run())


four = Settings(epochs=4, batch_size=8, optimizer="sgd", lr=0.01, warmup_share=0.1)
two = dataclasses.replace(four, epochs=2, warmup_share=0)
runs = {
    "Adam 0.01": [dataclasses.replace(four, optimizer="adam", warmup_share=0)],
    "Adam 0.01, warm-up": [dataclasses.replace(four, optimizer="adam")],
    "SGD 0.01": [dataclasses.replace(four, warmup_share=0)],
    "SGD 0.01, warm-up": [four],
    "SGD 0.0003, warm-up (the rate of pets_sgd)": [dataclasses.replace(four, lr=3e-4)],
    "Adam 0.0001, then SGD 0.01 (as pets_adam_sgd)": [
        dataclasses.replace(two, optimizer="adam", lr=1e-4),
        two,
    ],
}
results, step_losses, models = {}, {}, {}
for name, phases in runs.items():
    step_losses[name] = []
    models[name], results[name] = fine_tuned(*phases, losses=step_losses[name])
assert all(len(losses) == 120 for losses in step_losses.values())

# %%
display(comparison_figure(list(results.items())))

# %%
final = {name: epochs[-1].val_accuracy for name, epochs in results.items()}
for name, accuracy in final.items():
    print(
        f"{100 * accuracy:5.1f} % ± {196 * math.sqrt(accuracy * (1 - accuracy) / 200):3.1f}  {name}"
    )
assert final["Adam 0.01"] < 0.3 and final["Adam 0.01, warm-up"] < 0.3
assert final["SGD 0.01"] > 0.65 and final["SGD 0.01, warm-up"] > 0.65
assert final["SGD 0.0003, warm-up (the rate of pets_sgd)"] < 0.5
assert final["Adam 0.0001, then SGD 0.01 (as pets_adam_sgd)"] < final["SGD 0.01"]
assert abs(final["SGD 0.01"] - final["SGD 0.01, warm-up"]) < 0.08

# %% [markdown]
# The ± is the half-width of a 95 % interval for 200 scenes: differences of a few percent mean
# nothing. What the six runs say:
#
# - **Adam at 0.01 fails**, with a warm-up too. Its first steps wreck the features (the table
#   above), and 240 scenes do not bring them back. In `pets_sgd.toml` it is reported to have failed
#   as well.
# - **SGD at 0.01 works.** The warm-up changes nothing that 200 scenes could show. It costs nothing,
#   and it is not the reason for the result here.
# - **The rate of `pets_sgd` itself is too low for 120 steps.** A rate belongs to a number of steps:
#   the head begins at zero, and 2,760 rates of 0.0003 sum to no more than 83 of 0.01, and our 120
#   to 3.6. The recipe's notes have the same on real photos: 198 steps at this rate ended at 5.41 %.
# - **Adam and then SGD** is behind: two epochs at 0.0001 leave the head nearly at zero, and the two
#   that SGD has left have to do the work.

# %%
assert round(2760 * 0.0003 / 0.01) == 83
figure, panel = plt.subplots(figsize=(8, 3.2), layout="constrained")
for name, losses in step_losses.items():
    smooth = torch.tensor(losses).unfold(0, 8, 1).mean(dim=1)  # (120,) -> (113, 8) -> (113,)
    panel.plot(range(8, len(losses) + 1), smooth, label=name, linewidth=1.2)
panel.axhline(math.log(48), color="grey", linestyle=":", label="ln 48: all classes alike")
panel.set(xlabel="step", ylabel="cross-entropy (nats)", ylim=(0, 7))
panel.set_title("Training loss, mean of the last 8 steps", fontsize=10)
panel.legend(frameon=False, fontsize=7, ncols=2, loc="upper right")
panel.grid(alpha=0.3)
plt.show()

# %% [markdown]
# ## Exercise 5.3: rescue Adam at 0.01
#
# The head is new and needs a high rate; the blocks are trained and need a low one. Keep Adam, the
# rate 0.01 for the head, 4 epochs and batches of 8, and reach 70 % of the validation scenes. Which
# field of `Settings` gives each block a lower rate than the next? (`help(Settings)` lists them.)
# The check trains with your settings, which takes some seconds.

# %% exercise="5.3" tags=["stub"]
rescued = ...  # Settings(epochs=4, batch_size=8, optimizer="adam", lr=0.01, …)

check_rescued(rescued, fine_tune)

# %% [markdown] exercise="5.3" tags=["hint"]
# <details><summary>Hint</summary>
#
# `layer_decay`: the head has the full rate, the last block a fraction of it, the block before it
# the square of that fraction, and so on. The recipe's notes use 0.75 for 12 blocks; here there are
# 4.
#
# </details>

# %% [markdown] exercise="5.3" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# from minivit.training.settings import Settings
#
# rescued = Settings(
#     epochs=4, batch_size=8, optimizer="adam", lr=0.01, warmup_share=0.1, layer_decay=0.3
# )
# ```
#
# 0.1 to 0.5 all pass. With 0.3 the first block moves at 0.01 · 0.3⁴ = 0.00008.
#
# </details>

# %% [markdown]
# ## Augmentation, seen
#
# Both recipes show each photo anew in every epoch: another crop, mirrored or not, turned by up to
# 15 degrees, lighter or darker. A sample is drawn from (seed, epoch, number of the photo) and from
# nothing else, so that a run can be repeated.

# %%
recipe = ClassifyRecipe(
    **{key: value for key, value in read_recipe("pets_sgd").items() if key != "task"}
)
preprocess = dataclasses.replace(start.preprocess, image_size=(96, 96))
augmentation = make_augmentation(recipe, preprocess)
print(augmentation.describe().replace("), ", "),\n"))

photo = minivit.open_image("photos/cat.jpg")
views = [augmentation.view(photo, sample_rng(0, epoch, 0)) for epoch in range(5)]
again = augmentation.view(photo, sample_rng(0, 3, 0))
assert again.tobytes() == views[3].tobytes()  # the same three numbers, the same picture

figure, axes = plt.subplots(1, 6, figsize=(6.8, 1.5), layout="constrained")
titles = ["photo, as in use", *(f"epoch {epoch}" for epoch in range(5))]
for panel, view, title in zip(axes, [preprocess.view(photo), *views], titles, strict=True):
    panel.imshow(view, interpolation="nearest")
    panel.set_title(title, fontsize=8)
    panel.set_axis_off()
plt.show()

# %% [markdown]
# MixUp and CutMix put two pictures into one and mix the labels in the same proportion. CutMix
# counts the pixels of the box, not what is on them: the label says cat by area, whether or not the
# box shows any of it.

# %%
names = ("cat", "coffee", "astronaut")
pictures = [preprocess.view(minivit.open_image(f"photos/{name}.jpg")) for name in names]
batch = torch.stack([preprocess(picture) for picture in pictures])  # (3, 3, 96, 96)
labels = torch.arange(3)

figure, axes = plt.subplots(2, 2, figsize=(3.6, 3.9), layout="constrained")
for row, mix in zip(axes, (MixUp(3, alpha=0.8), CutMix(3, alpha=1.0)), strict=True):
    mixed, targets = mix(batch, labels, sample_rng(0, 0, 4))
    assert torch.allclose(targets.sum(dim=1), torch.ones(3))
    for panel, image, target in zip(row, mixed, targets, strict=False):
        shown = image * torch.tensor(preprocess.std)[:, None, None]  # the normalisation, undone
        shown = shown + torch.tensor(preprocess.mean)[:, None, None]
        picture = rearrange(shown.clamp(0, 1), "c h w -> h w c")  # (3, h, w) -> (h, w, 3)
        panel.imshow(picture, interpolation="nearest")
        parts = [f"{100 * p:.0f} % {name}" for p, name in zip(target, names, strict=True) if p > 0]
        panel.set_title(f"{type(mix).__name__}:\n" + ", ".join(parts), fontsize=7)
        panel.set_axis_off()
plt.show()

# %% [markdown]
# **An augmentation states that the label stays the same.** A mirrored cat is a cat. A mirrored "6",
# a mirrored word, a mirrored "left of" are something else, and no error is raised.

# %%
index = next(n for n in range(200) if " left of " in make_scene(3, n).caption)
scene = make_scene(3, index, image_size=64)
figure, axes = plt.subplots(1, 2, figsize=(7.5, 2.8), layout="constrained")
for panel, view, title in zip(
    axes, (scene.image, ImageOps.mirror(scene.image)), ("as drawn", "mirrored"), strict=True
):
    panel.imshow(view, interpolation="nearest")
    panel.set_title(title, fontsize=9)
    panel.set_axis_off()
figure.suptitle(f"“{scene.caption}”: true on one side only", fontsize=9)
plt.show()

# %% [markdown]
# ## Exercise 5.4: the caption of the mirrored picture
#
# Return the caption that is true of the mirror image. Words are separated by single spaces.


# %% exercise="5.4" tags=["stub"]
def mirrored(caption: str) -> str:
    """The caption of the picture with left and right exchanged."""
    ...


check_mirrored(mirrored)

# %% [markdown] exercise="5.4" tags=["hint"]
# <details><summary>Hint</summary>
#
# Two calls of `replace`, one after the other, make all of them the same. Go through the words.
#
# </details>

# %% [markdown] exercise="5.4" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def mirrored(caption):
#     other = {"left": "right", "right": "left"}
#     return " ".join(other.get(word, word) for word in caption.split(" "))
# ```
#
# </details>

# %% [markdown]
# ## What turned pictures do to positions
#
# The position embeddings of a ViT are weights like others: they learn what the gradient brings
# them. Take a picture in all eight ways that a square can be laid (four quarter turns, and their
# mirror images), with one label for all. Patches of one plain colour each look the same in all
# eight; only their places differ. While the positions are equal, or themselves unchanged by turns,
# the model cannot tell the eight pictures apart, and what a patch sends back is carried around with
# it:
#
# $$G_q \;=\; \sum_{\text{ways } w} g_{\,w^{-1}(q)}$$
#
# $g_p$ is the gradient at place $p$ of the upright picture, $G_q$ the sum that place $q$ gets.
# Places that a turn exchanges get the same sum: four corners one, and the eight places beside them
# one.
#
# **Before you run it:** on a grid of 6 × 6, how many different gradients are left?

# %%
SIDE, PATCH = 6, 4


def small_vit() -> VisionTransformer:
    """One block of width 32 over 6 × 6 patches, with a class for each place."""
    torch.manual_seed(1)
    pixels = SIDE * PATCH
    config = ViTConfig(
        image_size=(pixels, pixels),
        patch_size=(PATCH, PATCH),
        dim=32,
        depth=1,
        num_heads=2,
        hidden_dim=128,
        num_classes=SIDE**2,
        activation="gelu",
        layer_norm_eps=1e-6,
    )
    return VisionTransformer(config)


def spots(seed: int, count: int) -> tuple[Tensor, Tensor]:
    """One white patch on grey: (count, 3, 24, 24) uint8, and its place (count,), 0 to 35."""
    random = torch.Generator().manual_seed(seed)
    images = torch.full((count, 3, SIDE, PATCH, SIDE, PATCH), 105)
    place = torch.randint(SIDE**2, (count,), generator=random)
    images[torch.arange(count), :, place // SIDE, :, place % SIDE] = 255
    images = rearrange(images, "b c rows h cols w -> b c (rows h) (cols w)")  # (count, 3, 24, 24)
    return images.to(torch.uint8), place


model = small_vit()
torch.nn.init.normal_(model.head.weight)
with torch.no_grad():
    model.pos_embed.zero_()
images, places = spots(2, 16)
for way in range(8):
    turned, _ = turn(images, None, way)
    logits = model(model.preprocess.normalize(turned))
    F.cross_entropy(logits, places).backward()  # one label for all eight
gradient = model.pos_embed.grad[0, 1:]  # (1, 37, 32) -> (36, 32)
apart = torch.cdist(gradient, gradient) / gradient.norm(dim=1).mean()  # (36, 36)
groups = {tuple((row < 1e-3).nonzero().flatten().tolist()) for row in apart}
for group in sorted(groups, key=min):
    print(f"{len(group)} places with one gradient:", *[divmod(place, SIDE) for place in group])
assert sorted(map(len, groups)) == [4, 4, 4, 8, 8, 8]

# %% [markdown]
# Six are left for 36 places. And a step that is the same for all places of a group leaves positions
# that turns do not change, so that the next gradient is the same for all again.
#
# Now 40 steps of training, by the library's loop, from positions that are all zero: what they
# become is what the gradient made of them. The question is the plainest that needs positions, *in
# which of the 36 places is the white patch?* In one run the pictures are upright, in the other each
# is given in all eight ways **with the label of the upright one**, as an augmentation does it.
#
# **Before you run it:** after the steps, how alike are two corners in each of the two?


# %%
@dataclasses.dataclass(frozen=True)
class InEightWays:
    """Samples like `LabelledImages`, each picture given in all eight ways with one label."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def load(self, epoch: int, pieces):
        for piece in pieces:
            ways = [turn(self.images[piece.indices], None, way)[0] for way in range(8)]
            labels = self.labels[piece.indices].repeat(8)
            yield ImageBatch(torch.cat(ways), labels)  # (8 · B, 3, 24, 24), (8 · B,)


def forty_steps(data) -> tuple[VisionTransformer, float]:
    """A small ViT after 5 epochs of 8 steps, from positions that are zero; and its accuracy."""
    model = small_vit()
    with torch.no_grad():
        model.pos_embed.zero_()
    settings = Settings(epochs=5, batch_size=32, optimizer="adamw", lr=0.01, warmup_share=0.1)
    task, held_out = ClassificationTask(model), LabelledImages(*spots(1, 360))
    epochs = list(Trainer(task, data, held_out, [settings], processes=ONE).run())
    return model.eval(), epochs[-1].val_accuracy


def show_positions(similarities: dict[str, Tensor]) -> None:
    """The map of every place, (side, side, side, side), of several runs side by side."""
    width = 4.1 * len(similarities)
    figure, axes = plt.subplots(1, len(similarities), figsize=(width, 3.7), layout="constrained")
    for panel, (name, similarity) in zip(axes, similarities.items(), strict=True):
        drawn = draw_tiles(panel, position_tiles(similarity))
        panel.set_aspect("equal")
        panel.set_title(name, fontsize=10)
        figure.colorbar(drawn, ax=panel, shrink=0.8, label="cosine similarity")
    plt.show()


images, places = spots(0, 256)
vits = {
    "ViT, upright": forty_steps(LabelledImages(images, places)),
    "ViT, in eight ways": forty_steps(InEightWays(images, places)),
}
of_vits = {name: position_similarity(model) for name, (model, _) in vits.items()}
show_positions(of_vits)

numbers = torch.arange(SIDE**2).view(SIDE, SIDE)
ways = torch.stack([turn(numbers[None, None], None, way)[0][0, 0] for way in range(8)])
ways = rearrange(ways, "way rows cols -> (rows cols) way")  # (8, 6, 6) -> (36, 8): who comes here
group = ways.amin(dim=1)  # (36, 8) -> (36,): the least number that comes here
exchanged = (group[:, None] == group) & ~torch.eye(SIDE**2, dtype=torch.bool)  # (36, 36)
least = {}
for name, similarity in of_vits.items():
    flat = similarity.reshape(SIDE**2, SIDE**2)  # (6, 6, 6, 6) -> (36, 36)
    least[name] = flat[exchanged].min().item()
    print(f"{name}: {100 * vits[name][1]:.1f} % right. Similarity of two opposite corners", end=" ")
    print(
        f"{similarity[0, 0, -1, -1]:.3f}, least of all pairs that turns exchange {least[name]:.3f}"
    )
assert least["ViT, in eight ways"] > 0.99 > 0.9 > least["ViT, upright"]

# %% [markdown]
# Each small map shows how alike one place is to all 36. Under turns a place is like its images on
# the other side of the picture: the maps show rings. In 40 steps neither run has learned much of
# the task. The rings come from the turns. (Minivit's own training on scenes lays each step in one
# of the eight ways, `LabelledImages(turned=True)`: over many steps the same sum.)
#
# What happens when the task is learned? That takes a ViT longer than this page has. So the next
# runs have **positions alone**, on the same tiny grid: the patch that holds the spot is known, and
# its position embedding is all that is left of the model, under a norm and a linear head. Three
# questions:
#
# 1. *which of the 36 places?*, upright;
# 2. the same, in eight ways with the label of the upright picture;
# 3. *which row and which column?*, in eight ways, and the answer turns with the picture. As in
#    `place_loss` of minivit a neighbour is half right: the target is a Gaussian of 1.5 patches.
#
# The second cannot be right often. **Before you run it:** what is the best accuracy that a model
# can reach which only knows the group of a place?

# %%
one_of_36 = torch.eye(SIDE**2)  # (36, 36): place -> target
kept_label = one_of_36[ways].mean(dim=1)  # (36, 8, 36) -> (36, 36): the labels that a place gets
line = torch.arange(SIDE)
soft = (-((line[:, None] - line) ** 2) / (2 * 1.5**2)).softmax(dim=1)  # (6, 6)
row_and_col = torch.cat([soft[numbers.flatten() // SIDE], soft[numbers.flatten() % SIDE]], dim=1)


def positions_alone(target: Tensor, parts: int, steps: int = 300) -> tuple[Tensor, Tensor]:
    """Positions (36, 32) and logits, after training on a target (36, parts · classes)."""
    torch.manual_seed(0)
    positions = torch.nn.Parameter(0.02 * torch.randn(SIDE**2, 32))  # as the library begins
    read = torch.nn.Sequential(torch.nn.LayerNorm(32), torch.nn.Linear(32, target.shape[1]))
    optimizer = torch.optim.AdamW([positions, *read.parameters()], lr=0.01)
    for _ in range(steps):
        logits = read(positions)  # (36, 32) -> (36, parts · classes)
        pairs = zip(logits.chunk(parts, dim=1), target.chunk(parts, dim=1), strict=True)
        loss = sum(F.cross_entropy(answer, wanted) for answer, wanted in pairs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return positions.detach(), logits.detach()


learned = {
    "upright": positions_alone(one_of_36, 1),
    "in eight ways": positions_alone(kept_label, 1),
    "in eight ways, the answer turns": positions_alone(row_and_col, 2),
}
for name in ("upright", "in eight ways"):
    right = (learned[name][1].argmax(dim=1) == numbers.flatten()).double().mean()
    print(f"{name:14} {100 * right:5.1f} % of the 36 places right, upright")
    assert abs(right - {"upright": 1.0, "in eight ways": 6 / 36}[name]) < 0.06

# %% [markdown]
# A model that knows the group and guesses the place within gets one place of each group right: 6 of
# 36, 16.7 %.
#
# ## Exercise 5.5: how alike turns make the positions
#
# (The cells above use such pairs for a figure: write yours without them.)
#
# Measure it. `similarity` is `(side, side, side, side)`: entry `[r, c]` is the map of how similar
# the position embedding of (r, c) is to all. Return two numbers: the mean over all pairs of
# *different* places that one of the eight ways exchanges, and the mean over all pairs that none
# exchanges.


# %% exercise="5.5" tags=["stub"]
def alike_under_turns(similarity: Tensor) -> tuple[Tensor, Tensor]:
    """(mean similarity of places that turns exchange, of all other pairs), without each itself."""
    ...


check_alike_under_turns(alike_under_turns)

# %% [markdown] exercise="5.5" tags=["hint"]
# <details><summary>Hint</summary>
#
# Number the places, `torch.arange(side**2).view(side, side)`, and lay the numbers in eight ways
# with `torch.rot90` and `flip`. The smallest number that comes to a place over all ways is the name
# of its group.
#
# </details>

# %% [markdown] exercise="5.5" tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def alike_under_turns(similarity):
#     side = similarity.shape[0]
#     numbers = torch.arange(side**2).view(side, side)
#     ways = [torch.rot90(each, k) for each in (numbers, numbers.flip(1)) for k in range(4)]
#     group = torch.stack(ways).amin(dim=0).flatten()  # (8, side, side) -> (N,)
#     exchanged = group[:, None] == group  # (N, N)
#     itself = torch.eye(side**2, dtype=torch.bool)
#     flat = similarity.reshape(side**2, side**2)  # (side, side, side, side) -> (N, N)
#     return flat[exchanged & ~itself].mean(), flat[~exchanged].mean()
# ```
#
# </details>

# %%
similarities = {}
for name, (positions, _) in learned.items():
    unit = F.normalize(positions, dim=1)  # (36, 32)
    similarities[name] = (unit @ unit.T).view(SIDE, SIDE, SIDE, SIDE)  # (36, 36) -> (6, 6, 6, 6)
show_positions(similarities)

measured = {}
print("                                  pairs that turns exchange   others   nearest: a neighbour")
for name, similarity in {**of_vits, **similarities}.items():
    flat = similarity.reshape(SIDE**2, SIDE**2)  # (6, 6, 6, 6) -> (36, 36)
    alike, others = flat[exchanged].mean(), flat[group[:, None] != group].mean()
    measured[name] = (alike - others, position_scores(similarity).neighbours)
    print(f"{name:34} {alike:24.2f} {others:8.2f} {100 * measured[name][1]:22.0f} %")
assert measured["in eight ways"][0] > 0.5 > 0.2 > measured["upright"][0]
assert measured["in eight ways, the answer turns"][1] > 0.6

# %% [markdown]
# - **Upright**: each place is like itself only. The task names 36 places and asks for no order
#   among them, so none is learned.
# - **In eight ways**: rings. A place looks like its images under turns, and its neighbours may be
#   less like it than the opposite corner. The random start made places of a group different;
#   training has removed that.
# - **In eight ways, the answer turns**: neighbours are alike, and the bright spot walks with the
#   place. The pictures are turned as before; what differs is a question whose answer turns too.
#
# **These are demonstrations on a tiny grid**, with a task made to show it. The full size has been
# measured, and this lesson only quotes it (README.md): asked for classes alone, on scenes that are
# turned and mirrored, the shipped ViT's predecessor learned rings. 39.1 % of its places were most
# similar to a neighbour; the similarity was 0.68 in a row and in a column against 0.48 elsewhere.
# The shipped weights were trained on turned scenes with `place_loss` (recipe `scenes_shipped`,
# command `python train.py classify --recipe scenes_shipped`, 108 minutes of one core), and their
# figures can be computed here:

# %%
shipped = position_scores(position_similarity(start))
print(shipped)
assert shipped.neighbours > 0.99

# %% [markdown]
# The recipes for pets turn photos by up to 15 degrees and mirror them. A mirror alone pairs each
# place with its image on the other side; it makes no rings. What 15 degrees do to positions is not
# measured here.
#
# ## Fine-tuning at a higher resolution
#
# The ViT paper trains at 224 pixels and fine-tunes at 384. The patch keeps its size, so the grid
# gets larger, and one tensor has to change its shape: the position embeddings.
#
# We take the model that SGD trained at 48 pixels to 96. (The shipped weights, from which it
# started, had been trained at 96 before. So this is a way back, easier than a way up.)

# %%
tuned = models["SGD 0.01, warm-up"]
at_96 = ClassifyRecipe(epochs=1, batch_size=8, lr=0.003, image_size=96, weights="the model above")
larger, line = make_classifier(at_96, tuned.labels, tuned)
print(line)
before, after = tuned.state_dict(), larger.state_dict()
changed = [name for name in before if before[name].shape != after[name].shape]
print(
    "tensors of another shape:",
    *[f"{n} {tuple(before[n].shape)} -> {tuple(after[n].shape)}" for n in changed],
)
assert changed == ["pos_embed"]
assert all(torch.equal(before[name], after[name]) for name in before if name != "pos_embed")

try:
    copy.deepcopy(larger).load_state_dict(before, strict=False)
except RuntimeError as error:
    print("without the resize:", str(error).split("\n\t")[-1])

# %% [markdown]
# **Before you run it:** four ways to fill the 144 positions of the new grid, and no training at
# all. Which keeps the model working? *Stretched as one line*, a usual mistake, runs without an
# error: it takes the list of 36 for a line and stretches it.

# %%
large_train, _ = draw(7, 240, 96)  # the same scenes, drawn at 96 pixels
large_val, _ = draw(VALIDATION_SEED, 200, 96)


@torch.no_grad()
def accuracy(model: VisionTransformer, images: Tensor) -> float:
    logits = model.eval()(model.preprocess.normalize(images))
    return (logits.argmax(dim=1) == val_labels).double().mean().item()


grid = tuned.pos_embed.detach()[:, 1:]  # (1, 37, D) -> (1, 36, D)
line = F.interpolate(grid.mT, size=144, mode="linear").mT  # (1, 36, D) -> (1, 144, D)
shuffled = torch.randperm(144, generator=torch.manual_seed(0))
resized = larger.pos_embed.detach()[:, 1:]  # (1, 145, D) -> (1, 144, D)
random_start = 0.02 * torch.randn(1, 144, grid.shape[2], generator=torch.manual_seed(0))
fillings = {
    "48 pixels, as trained": None,
    "bicubic in rows and columns": resized,
    "stretched as one line": line,
    "the same, shuffled": resized[:, shuffled],
    "new random ones": random_start,
}
untrained = {}
for name, positions in fillings.items():
    if positions is None:
        untrained[name] = accuracy(tuned, val_images)
        continue
    trial = copy.deepcopy(larger)
    trial.pos_embed.data[:, 1:] = positions
    untrained[name] = accuracy(trial, large_val)
for name, value in untrained.items():
    print(f"{100 * value:5.1f} %  {name}")
best = untrained["bicubic in rows and columns"]
assert best > untrained["stretched as one line"] > untrained["new random ones"]

# %% [markdown]
# The right way is better at 96 pixels than the model was at the 48 that it was tuned for, before a
# single step: an object covers four times as many patches. Now one more epoch, 30 steps of SGD at
# 0.003, at 48 pixels and at 96.


# %%
def one_more(model: VisionTransformer, images: Tensor, held_out: Tensor) -> tuple[float, float]:
    """Accuracy after one more epoch, and its seconds a step."""
    settings = dataclasses.replace(four, epochs=1, lr=0.003)
    model = copy.deepcopy(model)
    began = time.perf_counter()
    trainer = Trainer(
        ClassificationTask(model),
        LabelledImages(images, train_labels),
        LabelledImages(held_out[:1], val_labels[:1]),  # measured below, outside the clock
        [settings],
        processes=ONE,
    )
    list(trainer.run())
    seconds = (time.perf_counter() - began) / trainer.num_steps
    return accuracy(model, held_out), seconds


low, low_seconds = one_more(tuned, train_images, val_images)
high, high_seconds = one_more(larger, large_train, large_val)
small = untrained["48 pixels, as trained"]
print("                          48 pixels   96 pixels")
print(f"before                    {100 * small:7.1f} % {100 * best:9.1f} %")
print(f"after one more epoch      {100 * low:7.1f} % {100 * high:9.1f} %")
print(f"milliseconds a step       {1000 * low_seconds:7.0f} {1000 * high_seconds:11.0f}")
print(f"tokens                    {37:7} {145:11}")
print(f"A step takes {high_seconds / low_seconds:.1f} times as long, tokens {145 / 37:.1f} times.")
assert high > low + 0.03 and high >= best - 0.02

linear, scores = 12 * 96**2, 2 * 145 * 96  # multiplications a token and block: 4 D² + 8 D², 2 N D
print(f"share of the scores at 96 pixels: {100 * scores / (linear + scores):.0f} %")
assert 0.19 < scores / (linear + scores) < 0.21

# %% [markdown]
# At 96 pixels the model is better before and after the epoch (whether the epoch itself gives more,
# 200 scenes cannot show; the shipped weights had been trained at 96). Each of its steps takes
# longer, as there are more tokens: at this width the scores, which grow with the square of their
# number, are a fifth of the multiplications. That is the reason for two stages: most steps where
# they are cheap, the last ones where they count.
#
# ## Questions
#
# **1.** Adam's first step has the length $\eta$ a weight whatever the gradient. Why does a warm-up
# over 12 steps not rescue Adam at 0.01?
#
# <details><summary>Answer</summary>
#
# The warm-up makes the first twelve steps shorter, 0.0008 to 0.01 a weight. They still add up to
# about 0.065 if they point the same way, and after them each step has the full length. A warm-up
# helps where only the beginning is dangerous. Here the rate itself is too high for the blocks.
#
# </details>
#
# **2.** You fine-tune on chest X-rays, and the label says on which side the shadow is. Which
# transforms of `pets_sgd` do you keep?
#
# <details><summary>Answer</summary>
#
# Crops that leave both sides in the picture, brightness, small turns. Not the mirror, unless the
# label is exchanged with it, as in exercise 5.4. Crops of 70 % can cut the shadow off: look at the
# pictures first (`train.py preview`).
#
# </details>
#
# **3.** A model was trained with mirror images only, no turns. Into how many groups do the places
# of a 6 × 6 grid fall, and what does the map of one place look like?
#
# <details><summary>Answer</summary>
#
# Into 18 pairs, a place and its image on the other side of the middle column. The map has two
# bright spots in one row. Rows stay known, and the distance from the middle column, but not the
# side.
#
# </details>
#
# ## What people get wrong
#
# - **They take a rate from one optimizer to another.** "SGD trains and Adam does not, at any rate I
#   tried" is a report that returns in issues of segmentation and classification code. Adam's step
#   does not shrink with the gradient, so that a rate that suits SGD can be far too high. The notes
#   of `pets_sgd` use 3e-4 and 1e-3 with AdamW, lower in the early blocks.
# - **They exchange Adam for AdamW and keep the decay.** Adam adds the decay to the gradient and
#   divides it away again; AdamW takes it off the weights. One number means two things. A report on
#   a ViT trained so, with the settings of AdamW, has 6.3 % after 100 epochs.
# - **They load a checkpoint for another picture size and meet "size mismatch for pos_embed"**, for
#   example 1,370 rows against 257 for a DINOv2 model made for 518 pixels and a network built for
#   224. The usual first aid, loading with `strict=False`, does not even help: torch 2.13 raises
#   that error all the same. Deleting the key does help, and leaves random positions (the last line
#   of that table).
# - **They change the resolution and keep the number of patches in their own code**, 14 × 14 or 196
#   as a literal. Maps, pooling and masks are then cut wrongly, without an error where the number
#   happens to divide.
# - **They judge an augmentation by the loss.** With a wrong label in it the training loss stays
#   high and looks like a hard task (the pictures in eight ways above). Looking at twenty augmented
#   samples with their labels takes a minute.
#
# ## Sources
#
# - An Image is Worth 16x16 Words, arXiv:2010.11929: fine-tuning at a higher resolution (section
#   3.2), figure 7
# - Adam: A Method for Stochastic Optimization, arXiv:1412.6980
# - Decoupled Weight Decay Regularization (AdamW), arXiv:1711.05101
# - SGDR: Stochastic Gradient Descent with Warm Restarts (the cosine), arXiv:1608.03983
# - BEiT (rates that fall from block to block), arXiv:2106.08254
# - How to Fine-Tune Vision Models with SGD, arXiv:2211.09359
# - mixup: Beyond Empirical Risk Minimization, arXiv:1710.09412
# - CutMix, arXiv:1905.04899
# - Fixing the train-test resolution discrepancy, arXiv:1906.06423
# - All Tokens Matter: Token Labeling for Training Better Vision Transformers, arXiv:2104.10858
