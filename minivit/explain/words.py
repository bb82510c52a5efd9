"""Where a captioner looked for each word: its cross-attention, and relevance carried to the cells.

`word_relevance` is the bi-modal form of Chefer, Gur & Wolf 2021 (arXiv:2103.15679). With y the
logit of a word, Ā = mean over heads of (∂y/∂A ⊙ A)⁺, w the words read so far and c the cells::

    encoder            R_cc ← R_cc + Ā R_cc                               (equation 6)
    self-attention     R_ww ← R_ww + Ā R_ww,   R_wc ← R_wc + Ā R_wc       (6 and 7)
    cross-attention    R_wc ← R_wc + N(R_ww)ᵀ Ā N(R_cc)                   (10)
    N(R) = I + (R - I) / sums of the rows of (R - I)                      (8 and 9)

R_cc and R_ww begin as I and R_wc as 0; the map is the row of R_wc at the step that says the word.
A row of R - I that is all zeros has no sum to be divided by, and stays zeros: so it is with every
row through which nothing raised the logit, as those of words not yet read. Cells of a ViT are its
patches, and what ends in its prefix tokens is left out; relevance of a ResNet ends at its cells.

Maps are of the tokens after the start token, as in `minivit.word_maps` with `align="predicts"`:
map i belongs to token i + 1 of what the decoder reads, and is that of step i, which predicts it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from minivit.captioner import Captioner, Memory
from minivit.explain.conditions import fixed
from minivit.explain.free_memory import bytes_of_weights, require_memory
from minivit.vit import VisionTransformer
from minivit.word_maps import relative_attention


def cross_attention(
    captioner: Captioner,
    images: Tensor,
    tokens: Tensor,
    *,
    image_mask: Tensor | None = None,
    block: int = -1,
    head: int | None = None,
    relative: bool = False,
) -> Tensor:
    """What each word's step gave to each cell.

    It says where values come from, not whether the word depends on them; cells of the encoder hold
    something of each other.

    Args:
        captioner: Captioner in any mode.
        images: (B, 3, height, width).
        tokens: (B, T) that the decoder reads: the start token, the sentence, padding.
        image_mask: As in `Captioner.encode`.
        block: Number of the decoder block; negative ones count from the last.
        head: Number of the head alone; None: the mean over heads.
        relative: Whether each map is divided by the mean over the words of its sentence, see
            `minivit.word_maps.relative_attention`; those of padding then are 0.

    Returns:
        (B, T - 1, rows, cols); each map sums to 1 unless `relative`.

    Raises:
        IndexError: No such block or head.
        ValueError: No word after the start token, or as `Captioner.encode` and `decode`.
    """
    captioner.check_map(block, head)
    _check_tokens(tokens)
    with fixed(captioner):
        memory = captioner.encode(images, image_mask)
        _, _, to_cells = captioner.decode(tokens, memory, need_weights=True)
        weights = to_cells[block][:, :, :-1]  # (B, H, T, M) -> (B, H, T - 1, M)
        rows = weights.mean(dim=1) if head is None else weights[:, head]  # -> (B, T - 1, M)
        maps = _on_grid(rows, memory)
        if relative:
            spoken = tokens[:, 1:] != captioner.tokenizer.pad_id
            for own, real in zip(maps, spoken, strict=True):
                own[real] = relative_attention(own[real])
                own[~real] = 0
    return maps


def word_relevance(
    captioner: Captioner,
    images: Tensor,
    tokens: Tensor,
    *,
    image_mask: Tensor | None = None,
    words: Sequence[int] | None = None,
) -> Tensor:
    """Relevance of each cell for each word: arXiv:2103.15679, encoder and decoder.

    It says through which cells attention that raises the word's logit passes on its way there, also
    by words said before. What lowers the logit is left out, as are MLPs and what values hold.

    Args:
        captioner: Captioner in any mode.
        images: (B, 3, height, width).
        tokens: (B, T) that the decoder reads: the start token, the sentence, padding.
        image_mask: As in `Captioner.encode`.
        words: Numbers of the words, the first after the start token is 0, negative ones from the
            last; None: all. Each takes a backward pass.

    Returns:
        (B, words, rows, cols), not negative, on no common scale: compare cells of one map.

    Raises:
        IndexError: No such word.
        ValueError: No word after the start token; called under `torch.inference_mode`; the maps of
            all blocks do not fit into the free memory; or as `Captioner.encode` and `decode`.
    """
    _check_tokens(tokens)
    count = tokens.shape[1] - 1
    for word in range(count) if words is None else words:
        if not -count <= word < count:
            raise IndexError(f"word {word}: choose from {-count} to {count - 1}")
    numbers = range(count) if words is None else [word % count for word in words]
    within_backbone = isinstance(captioner.backbone, VisionTransformer)
    _require_room(captioner, images, tokens)
    # A copy, not a view: a tensor made under torch.inference_mode takes no part in a graph.
    pictures = images.detach().clone().requires_grad_(within_backbone)
    with fixed(captioner, gradients=True), _graph_begins(captioner):
        memory, of_cells = captioner.encode(pictures, image_mask, return_attention=True)
        logits, of_words, to_cells = captioner.decode(tokens, memory, need_weights=True)
        attentions = [*of_cells, *of_words, *to_cells]
        maps = []
        for number in numbers:
            score = logits[:, number].gather(1, tokens[:, number + 1, None]).sum()
            gradients = torch.autograd.grad(score, attentions, retain_graph=True)
            raising = [
                (attention.detach() * gradient).clamp_(min=0).mean(dim=1)  # -> (B, N, N)
                for attention, gradient in zip(attentions, gradients, strict=True)
            ]
            first, second = len(of_cells), len(of_cells) + len(of_words)
            with torch.no_grad():
                cells = _cells_of_cells(captioner, raising[:first], memory)
                flow = _cells_of_words(raising[first:second], raising[second:], cells)
            maps.append(flow[:, number])  # (B, T, M) -> (B, M)
    return _on_grid(torch.stack(maps, dim=1), memory)


def _require_room(captioner: Captioner, images: Tensor, tokens: Tensor) -> None:
    """Raises a ValueError unless all maps and their gradients fit into the free memory."""
    config, backbone = captioner.config, captioner.backbone
    size = max(4, images.element_size())
    if isinstance(backbone, VisionTransformer):
        rows, cols = backbone.patch_embed.grid_for(*images.shape[-2:])
        needed = len(images) * len(backbone.blocks) * bytes_of_weights(backbone, images[:1])
    else:
        rows, cols = (math.ceil(side / backbone.stride) for side in images.shape[-2:])
        needed = 0
    cells, words = rows * cols, tokens.shape[1]
    entries = config.encoder_depth * cells**2 + config.decoder_depth * words * (words + cells)
    needed += len(images) * config.num_heads * entries * size
    require_memory(
        2 * needed,
        images.device,
        what=f"relevance of the words of {len(images)} pictures",
        advice="give fewer or smaller pictures at once",
    )


@contextlib.contextmanager
def _graph_begins(captioner: Captioner) -> Iterator[None]:
    """Has autograd record from the cells' and the words' first weights on; within `fixed`.

    A ResNet has no attention, so nothing of it needs to be kept.
    """
    first = (captioner.input_proj.bias, captioner.pos_embed)
    try:
        for weight in first:
            weight.requires_grad_(True)
        yield
    finally:
        for weight in first:
            weight.requires_grad_(False)


def _cells_of_cells(captioner: Captioner, raising: Sequence[Tensor], memory: Memory) -> Tensor:
    """R_cc (B, M, M), through the blocks of a ViT, if it is one, and of the encoder."""
    backbone = captioner.backbone
    within = len(backbone.blocks) if isinstance(backbone, VisionTransformer) else 0
    prefix = backbone.num_prefix_tokens if isinstance(backbone, VisionTransformer) else 0
    length = prefix + memory.tokens.shape[1]
    flow = torch.eye(length).to(memory.tokens).expand(len(memory.tokens), -1, -1)
    for mean in raising[:within]:
        flow = flow + mean @ flow
    flow = flow[:, prefix:, prefix:]  # (B, N, N) -> (B, M, M)
    for mean in raising[within:]:
        flow = flow + mean @ flow
    return flow


def _cells_of_words(
    to_words: Sequence[Tensor], to_cells: Sequence[Tensor], cells: Tensor
) -> Tensor:
    """R_wc (B, T, M) after the last decoder block."""
    cells = _share_rows(cells)
    words = torch.eye(to_words[0].shape[-1]).to(cells).expand_as(to_words[0])  # (B, T, T)
    flow = torch.zeros_like(to_cells[0])  # (B, T, M)
    for own, cross in zip(to_words, to_cells, strict=True):
        words, flow = words + own @ words, flow + own @ flow
        flow = flow + _share_rows(words).transpose(1, 2) @ cross @ cells
    return flow


def _share_rows(flow: Tensor) -> Tensor:
    """I + (R - I) with rows of sum 1, or of zeros where there is nothing: N(R) of the equations."""
    identity = torch.eye(flow.shape[-1]).to(flow)
    rest = flow - identity
    sums = rest.sum(dim=-1, keepdim=True)
    return identity + torch.where(sums > 0, rest / sums.where(sums > 0, 1.0), 0.0)


def _check_tokens(tokens: Tensor) -> None:
    if tokens.dim() != 2 or tokens.shape[1] < 2:
        raise ValueError(
            f"tokens are {tuple(tokens.shape)}, expected (B, T): the start token and a word at "
            "least"
        )


def _on_grid(rows: Tensor, memory: Memory) -> Tensor:
    """(B, words, M) -> (B, words, rows, cols)."""
    return rows.reshape(*rows.shape[:2], *memory.grid)
