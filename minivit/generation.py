"""From logits to sentences.

The picture is encoded once. Each step feeds one new word a sentence; keys and values of earlier
words, and of the picture, are cached (`minivit.blocks.DecoderCache`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from minivit.captioner import Captioner, Memory


class Hypothesis(NamedTuple):
    """A sentence in numbers.

    Attributes:
        token_ids: Without start and end token.
        log_probs: Of each token; where the sentence ended, also that of the end token.
        ended: Whether it ended, or was cut at the maximal length.
        score: Sum of log_probs / their number ** length_penalty.
    """

    token_ids: list[int]
    log_probs: list[float]
    ended: bool
    score: float


@torch.inference_mode()
def generate(
    captioner: Captioner,
    memory: Memory,
    *,
    beam_size: int = 1,
    max_length: int | None = None,
    length_penalty: float = 1.0,
) -> list[list[Hypothesis]]:
    """The likeliest sentences by beam search; with one beam, greedily.

    A picture is done when `beam_size` sentences have ended and no unended one has a better score by
    its present length (the usual heuristic: a longer one might still overtake).

    Args:
        captioner: In eval mode.
        memory: Of B pictures; the beams of a picture share it.
        beam_size: K, sentences followed at a time for each picture.
        max_length: Most tokens, the start token counted; None: all the captioner's positions.
        length_penalty: Exponent of the length that divides the sum of log-probabilities; 0 prefers
            short sentences, 1 compares means. It does nothing with one beam.

    Returns:
        For each picture up to K sentences, the best first.

    Raises:
        ValueError: A beam size below 1 or above the vocabulary, a length that is not possible.
    """
    vocabulary = captioner.config.vocabulary_size
    if not 1 <= beam_size <= vocabulary // 2:
        raise ValueError(f"beam_size is {beam_size}, expected 1 to {vocabulary // 2}")
    length = _check_length(captioner, max_length)
    end = captioner.tokenizer.end_id
    batch, device = memory.tokens.shape[0], memory.tokens.device
    caches = captioner.new_cache(batch * beam_size, batch, memory)
    tokens = torch.full((batch * beam_size, 1), captioner.tokenizer.start_id, device=device)
    log_probs = torch.zeros(batch * beam_size, 0, device=device)
    scores = torch.full((batch, beam_size), -torch.inf, device=device)
    scores[:, 0] = 0.0  # at first all beams are the same: one of them counts
    ended: list[list[Hypothesis]] = [[] for _ in range(batch)]
    done = [False] * batch
    for step in range(1, length):
        logits, _, _ = captioner.decode(tokens[:, -1:], memory, caches=caches)
        step_log_probs = logits[:, -1].float().log_softmax(dim=-1)  # (B·K, vocabulary)
        totals = scores.view(-1, 1) + step_log_probs
        # twice as many as needed: at most K of them end
        best, flat = totals.view(batch, -1).topk(2 * beam_size)  # (B, K·vocabulary) -> (B, 2·K)
        origin, word = flat // vocabulary, flat % vocabulary
        rows: list[int] = []
        words: list[int] = []
        for picture in range(batch):
            kept = 0
            for rank, (total, beam, token) in enumerate(
                zip(*(found[picture].tolist() for found in (best, origin, word)), strict=True)
            ):
                row = picture * beam_size + beam
                if token == end:
                    if rank < beam_size and not done[picture]:
                        found = [*log_probs[row].tolist(), step_log_probs[row, token].item()]
                        score = total / step**length_penalty
                        hypothesis = Hypothesis(tokens[row, 1:].tolist(), found, True, score)
                        ended[picture].append(hypothesis)
                elif kept < beam_size:
                    scores[picture, kept] = total
                    rows.append(row)
                    words.append(token)
                    kept += 1
            ended[picture] = _best(ended[picture], beam_size)
            if len(ended[picture]) == beam_size:
                running = scores[picture, 0].item() / step**length_penalty
                done[picture] |= beam_size == 1 or running <= ended[picture][-1].score
        if all(done):
            break
        index, new = torch.tensor(rows, device=device), torch.tensor(words, device=device)
        gained = step_log_probs[index, new]
        if beam_size > 1:
            for cache in caches:
                cache.reorder(index)
        tokens = torch.cat([tokens[index], new[:, None]], dim=1)
        log_probs = torch.cat([log_probs[index], gained[:, None]], dim=1)
    for picture in range(batch):
        if done[picture]:
            continue
        for beam in range(beam_size):
            row = picture * beam_size + beam
            total = scores[picture, beam].item()
            score = total / max(1, log_probs.shape[1]) ** length_penalty
            cut = Hypothesis(tokens[row, 1:].tolist(), log_probs[row].tolist(), False, score)
            ended[picture].append(cut)
        ended[picture] = _best(ended[picture], beam_size)
    return ended


def _best(found: list[Hypothesis], number: int) -> list[Hypothesis]:
    return sorted(found, key=lambda hypothesis: -hypothesis.score)[:number]


def _check_length(captioner: Captioner, max_length: int | None) -> int:
    most = captioner.config.max_length
    length = most if max_length is None else max_length
    if not 2 <= length <= most:
        raise ValueError(f"max_length is {length}: this captioner writes 2 to {most} tokens")
    return length


@torch.inference_mode()
def sample(
    captioner: Captioner,
    memory: Memory,
    *,
    seed: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    max_length: int | None = None,
) -> list[Hypothesis]:
    """One sentence a picture, each word drawn by chance.

    Args:
        captioner: In eval mode.
        memory: Of B pictures.
        seed: The same seed gives the same sentences.
        temperature: Divides the logits; below 1 likely words become likelier.
        top_k: Draw from the k likeliest words only; None: from all.
        top_p: Draw from the fewest words whose probabilities sum to at least this ("nucleus",
            arXiv:1904.09751).
        max_length: As in `generate`.

    Returns:
        For each picture a sentence; its log_probs are the captioner's own, before temperature and
        restrictions.

    Raises:
        ValueError: A temperature or top_p not above 0, top_p above 1, top_k below 1, a length that
            is not possible.
    """
    if temperature <= 0 or not 0 < top_p <= 1 or (top_k is not None and top_k < 1):
        raise ValueError(
            f"temperature {temperature}, top_p {top_p}, top_k {top_k}: expected above 0, in (0, 1] "
            "and at least 1"
        )
    length = _check_length(captioner, max_length)
    end = captioner.tokenizer.end_id
    batch, device = memory.tokens.shape[0], memory.tokens.device
    generator = torch.Generator(device="cpu").manual_seed(seed)
    caches = captioner.new_cache(batch, batch, memory)
    token_ids: list[list[int]] = [[] for _ in range(batch)]
    found: list[list[float]] = [[] for _ in range(batch)]
    ended = [False] * batch
    last = torch.full((batch, 1), captioner.tokenizer.start_id, device=device)
    for _ in range(1, length):
        logits, _, _ = captioner.decode(last, memory, caches=caches)
        logits = logits[:, -1].float().cpu()  # (B, 1, vocabulary) -> (B, vocabulary)
        log_probs = logits.log_softmax(dim=-1)
        allowed = _restrict(logits / temperature, top_k, top_p).softmax(dim=-1)
        last = torch.multinomial(allowed, 1, generator=generator)  # (B, 1)
        for picture, token in enumerate(last[:, 0].tolist()):
            if not ended[picture]:
                found[picture].append(log_probs[picture, token].item())
                ended[picture] = token == end
                if token != end:
                    token_ids[picture].append(token)
        last = last.to(device)
        if all(ended):
            break
    return [
        Hypothesis(ids, values, over, sum(values) / max(1, len(values)))
        for ids, values, over in zip(token_ids, found, ended, strict=True)
    ]


def _restrict(logits: Tensor, top_k: int | None, top_p: float) -> Tensor:
    """Logits with -inf at the words that may not be drawn."""
    ordered, order = logits.sort(dim=-1, descending=True)
    before = ordered.softmax(dim=-1).cumsum(dim=-1) - ordered.softmax(dim=-1)
    keep = before < top_p  # a word stays while those before it do not make up top_p
    if top_k is not None:
        keep[:, top_k:] = False
    return logits.masked_fill(~keep.gather(-1, order.argsort(dim=-1)), -torch.inf)
