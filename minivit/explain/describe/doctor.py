"""Why does a map look bad? Known causes, each measured on one picture.

| symptom | number |
| --- | --- |
| outlier tokens | longest patch token / median, worst block (`outliers.py`, arXiv:2309.16588) |
| self-looking head | what a head's patches give to themselves, mean, worst head |
| attention beside the picture | what the class token gives to no patch, last block, worst head |
| one-hot rows | part of a head's rows whose largest weight is above 0.9, worst head |
| one-hot map | largest weight that the class token gives to a patch, last block, worst head |
| input range | distance of the pixels' ends from 0 and 1, normalisation undone |
| resolution | patches a side / those that the positions were learned for, or the inverse |
| squashed photo | how much more one side was shrunk than the other |
| half precision | largest difference of the class token's rows, all blocks, from float32 |

A number above its threshold is a finding. Thresholds are conventions: the shipped model on scenes
stays below all of them, and most of them are halves.

What cannot be told: whether mean and std that are saved with weights are those of their training.
Pixels are compared with what they say, which shows pixels that were never normalised, normalised
twice or left at 0 to 255; not those that were scaled to -1 to 1 for ImageNet's numbers.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from minivit.explain.conditions import fixed
from minivit.explain.describe.input_symptoms import (
    half_precision,
    input_range,
    resolution,
    squash,
)
from minivit.explain.describe.mass import mass_by_kind
from minivit.explain.describe.outliers import outlier_tokens
from minivit.explain.describe.symptom import Symptom
from minivit.explain.describe.walk import measure_attention, tokens_by_block
from minivit.precision import widen
from minivit.vit import VisionTransformer

OUTLIER_TIMES = 3.0
ONE_HOT = 0.9
"""Weight above which a row counts as one-hot."""


def diagnose(
    model: VisionTransformer,
    images: Tensor,
    *,
    photo_size: tuple[int, int] | None = None,
    half: torch.dtype | None = None,
) -> list[Symptom]:
    """The symptoms that a picture shows, worst first: those of `examine` above their thresholds.

    Args:
        model: As in `examine`.
        images: As in `examine`.
        photo_size: As in `examine`.
        half: As in `examine`.
    """
    symptoms = examine(model, images, photo_size=photo_size, half=half)
    return [symptom for symptom in symptoms if symptom.is_present]


def examine(
    model: VisionTransformer,
    images: Tensor,
    *,
    photo_size: tuple[int, int] | None = None,
    half: torch.dtype | None = None,
) -> list[Symptom]:
    """All that was measured, worst first: by the multiple of the threshold.

    Args:
        model: Vision Transformer. Without a class token, what concerns its row is left out.
        images: (1, C, height, width), normalised.
        photo_size: (width, height) of the photo that they were made of; None: unknown, and whether
            it was squashed is left out.
        half: Precision to compare with float32; None: that of the model, and no comparison where
            it is float32 or finer.

    Raises:
        ValueError: Not one picture; or numbers that are not finite.
    """
    if images.dim() != 4 or len(images) != 1:
        raise ValueError(
            f"images are {tuple(images.shape)}, expected (1, C, height, width): one picture"
        )
    symptoms = [_outliers(model, images), *_rows(model, images), *input_range(model, images)]
    if model.config.class_token:
        symptoms.append(_mass(model, images))
    symptoms.append(resolution(model, images))
    if photo_size is not None:
        symptoms.append(squash(model, photo_size))
    own = next(model.parameters()).dtype
    half = own if half is None and own.itemsize < 4 else half
    if half is not None:
        symptoms.append(half_precision(model, images, half))
    return sorted(symptoms, key=lambda symptom: -symptom.severity)


# ---- the tokens ----------------------------------------------------------------------------------


def longest_tokens_block(model: VisionTransformer, images: Tensor) -> int:
    """Number of the block after which the longest patch token stands out most."""
    ratios = []
    with fixed(model):
        for tokens in tokens_by_block(model, images):
            lengths = torch.linalg.vector_norm(widen(tokens[:, model.num_prefix_tokens :]), dim=-1)
            ratios.append(float(lengths.max() / lengths.quantile(0.5)))
    after = ratios[1:]  # the first are of the tokens before any block
    return after.index(max(after))


def _outliers(model: VisionTransformer, images: Tensor) -> Symptom:
    block = longest_tokens_block(model, images)
    norms, outliers = outlier_tokens(model, images, block=block, times=OUTLIER_TIMES)
    ratio, count = float(norms.max() / norms.flatten().quantile(0.5)), int(outliers.sum())
    return Symptom(
        name="outlier tokens",
        number=ratio,
        threshold=OUTLIER_TIMES,
        text=f"the longest patch token is {ratio:.1f} times as long as their median, after block "
        f"{block}; {count} of {norms.numel()} patches are above {OUTLIER_TIMES:g} times",
        advice="bright dots of a map may be these tokens and nothing in the picture: use weights "
        f"with registers (arXiv:2309.16588), or the map of a block before {block}",
    )


# ---- the rows of attention -----------------------------------------------------------------------


def _measure_rows(weights: Tensor, num_prefix: int) -> Tensor:
    """Four numbers of each head, (B, H, N, N) to (B, H, 4).

    What patches give to themselves; the part of one-hot rows; the effective number of tokens, e to
    the entropy, of all rows; and the largest weight that token 0 gives to a patch.
    """
    largest = weights.amax(dim=-1)  # (B, H, N)
    effective = torch.special.entr(weights).sum(dim=-1).exp()
    own = weights.diagonal(dim1=-2, dim2=-1)[..., num_prefix:]
    of_first = weights[..., 0, num_prefix:].amax(dim=-1)  # (B, H)
    one_hot = (largest > ONE_HOT).to(weights.dtype)
    columns = (own.mean(-1), one_hot.mean(-1), effective.mean(-1), of_first)
    return torch.stack(columns, dim=-1)


def _rows(model: VisionTransformer, images: Tensor) -> list[Symptom]:
    measure = partial(_measure_rows, num_prefix=model.num_prefix_tokens)
    numbers = measure_attention(model, images, measure)[0]  # (1, L, H, 4) -> (L, H, 4)
    own, one_hot, effective, of_first = numbers.unbind(dim=-1)
    grid = model.patch_embed.grid_for(*images.shape[-2:])
    length = model.num_prefix_tokens + grid[0] * grid[1]
    block, head = _worst(own)
    symptoms = [
        Symptom(
            name="self-looking head",
            number=float(own[block, head]),
            threshold=0.8,
            text=f"head {head} of block {block}: a patch gives {float(own[block, head]):.0%} of "
            f"its attention to itself, the mean over patches{_others(own, 0.8)}",
            advice="such a head tells nothing of other places: leave it out of means over heads, "
            "and do not read its maps of patches",
        )
    ]
    block, head = _worst(one_hot)
    symptoms.append(
        Symptom(
            name="one-hot rows",
            number=float(one_hot[block, head]),
            threshold=0.5,
            text=f"head {head} of block {block}: {float(one_hot[block, head]):.0%} of the rows "
            f"give more than {ONE_HOT} to one token; the effective number of tokens is "
            f"{float(effective[block, head]):.1f} of {length}{_others(one_hot, 0.5)}",
            advice="scores so large leave softmax no choice and next to no gradient, so methods by "
            "gradient do not see this head: look at other heads, or ask by occlusion or ablate",
        )
    )
    if model.config.class_token:
        head = int(of_first[-1].argmax())
        largest = float(of_first[-1, head])
        symptoms.append(
            Symptom(
                name="one-hot map",
                number=largest,
                threshold=ONE_HOT,
                text=f"head {head} of the last block: the class token gives {largest:.2f} to one "
                f"patch; the mean of such weights over heads is {float(of_first[-1].mean()):.2f}",
                advice="the map of such a head is one dot, and one dot in a mean: look at single "
                "heads, or at another block",
            )
        )
    return symptoms


def _worst(numbers: Tensor) -> tuple[int, int]:
    """(block, head) of the largest of (L, H)."""
    block, head = divmod(int(numbers.argmax()), numbers.shape[1])
    return block, head


def _others(numbers: Tensor, threshold: float) -> str:
    """How many heads are above a threshold, where the worst one is not alone."""
    count = int((numbers > threshold).sum())
    return f"; {count} of {numbers.numel()} heads are above {threshold:.0%}" if count > 1 else ""


def _mass(model: VisionTransformer, images: Tensor) -> Symptom:
    masses = mass_by_kind(model, images)
    last = {kind: mass[0, -1] for kind, mass in masses.items()}  # (1, L, H) -> (H,)
    beside = 1 - last["patches"]
    head = int(beside.argmax())
    number = max(0.0, float(beside[head]))
    kind = max(
        (kind for kind in last if kind != "patches"), key=lambda kind: float(last[kind][head])
    )
    where = "itself" if kind == "class" else f"the {kind}"
    return Symptom(
        name="attention beside the picture",
        number=number,
        threshold=0.5,
        text=f"head {head} of the last block: the class token gives {number:.0%} to tokens that "
        f"are no patches, most of it to {where}; mean over heads {float(beside.mean()):.0%}",
        advice="the map shows what is left: read beside it how much that is, and look at heads "
        "that look at the picture, or at an earlier block",
    )
