"""What a page says of a captioner: sentences, and what each step looked at and thought likely.

Nothing of a captioner runs in the page. Here it writes its sentence, reads it once more, and all
that the decoder did at every step is kept: the cross-attention of each block and head, and the
likeliest next words. Which step a word's map is of (`minivit.word_maps`) is chosen in the page.
Beside them stands the relevance of the cells for each token (`minivit.explain.words`), which takes
a backward pass each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from minivit.captioner import Captioner, Memory
from minivit.explain.stored_attention import LARGEST
from minivit.explain.words import word_relevance
from minivit.explorer.gather import PagePicture, data_url
from minivit.explorer.packed import Packed
from minivit.generation import Hypothesis, generate
from minivit.word_maps import decoder_input, describe

_NUM_NEXT_WORDS = 5


@torch.inference_mode(False)  # relevance needs gradients of the same tokens
@torch.no_grad()
def describe_captioner(
    captioner: Captioner,
    pictures: Sequence[PagePicture],
    packed: Packed,
    *,
    name: str,
    beam_size: int = 1,
    max_length: int | None = None,
) -> dict[str, Any]:
    """The document of a page about a captioner.

    Args:
        captioner: Captioner in eval mode.
        pictures: Pictures to show.
        packed: Arrays of the page, to which those of the document are added.
        name: Name of the weights.
        beam_size: As in `Captioner.caption`; with more than one the page lists the beams.
        max_length: As in `Captioner.caption`.

    Returns:
        What JSON knows, with arrays as `Packed.add` describes them.
    """
    config = captioner.config
    return {
        "version": 1,
        "name": name,
        "captioner": True,
        "config": {"depth": config.decoder_depth, "num_heads": config.num_heads},
        "pictures": [
            _picture(captioner, picture, packed, beam_size, max_length) for picture in pictures
        ],
    }


def _picture(
    captioner: Captioner,
    picture: PagePicture,
    packed: Packed,
    beam_size: int,
    max_length: int | None,
) -> dict[str, Any]:
    """One picture at a time: there is no padding then, and all cells hold picture."""
    seen = captioner.preprocess.view(picture.image)
    memory = captioner.encode_photos([picture.image])
    (beams,) = generate(captioner.next_words(memory), beam_size=beam_size, max_length=max_length)
    return {
        "name": picture.name,
        "source": data_url(seen),
        "size": list(seen.size),
        "grid": list(memory.grid),
        "box": list(captioner.cell_box(*memory.grid)),  # in pixels of what the captioner sees
        "caption": _caption(captioner, beams[0], picture, memory, packed),
        "beams": [
            {
                "text": captioner.tokenizer.decode(beam.token_ids),
                "score": beam.score,
                "ended": beam.ended,
            }
            for beam in beams
        ],
    }


def _caption(
    captioner: Captioner,
    sentence: Hypothesis,
    picture: PagePicture,
    memory: Memory,
    packed: Packed,
) -> dict[str, Any]:
    """The sentence, its words, and what the decoder did when it read them all."""
    tokenizer = captioner.tokenizer
    ids = [*sentence.token_ids, *([tokenizer.end_id] if sentence.ended else [])]
    tokens = decoder_input([ids], tokenizer, max_length=captioner.config.max_length)
    tokens = tokens.to(memory.tokens.device)
    logits, _, to_cells = captioner.decode(tokens, memory, need_weights=True)
    maps = torch.cat(to_cells).float().cpu()  # (1, H, T, M) a block -> (L, H, T, M)
    (caption,) = describe(
        [sentence],
        maps[-1:].mean(dim=1).view(1, -1, *memory.grid),  # -> (1, T, rows, cols)
        tokenizer,
        grids=[memory.grid],
        boxes=[captioner.cell_box(*memory.grid)],
    )
    words = [
        {"text": word.text, "tokens": list(word.tokens), "probability": math.exp(word.log_prob)}
        for word in caption.words
    ]
    if caption.end_log_prob is not None:
        end = {"text": "(end)", "tokens": [len(caption.tokens)], "end": True}
        words.append(end | {"probability": math.exp(caption.end_log_prob)})
    return {
        "text": caption.text,
        "words": words,
        "steps": _steps(captioner, tokens[0], ids, logits[0].float().cpu()),
        "maps": packed.add(maps.numpy()),
        "relevance": _relevance(captioner, picture, tokens, packed),
    }


def _relevance(
    captioner: Captioner, picture: PagePicture, tokens: Tensor, packed: Packed
) -> dict[str, Any] | None:
    """(tokens, cells) in 16 bits, each map in units of its largest / 32767; None without a token.

    The decoder reads no token at its last position, which thus has no map.
    """
    if tokens.shape[1] < 2:
        return None
    images = captioner.preprocess(picture.image)[None].to(captioner.pos_embed)
    maps = word_relevance(captioner, images, tokens)[0].flatten(1).float().cpu()  # (T - 1, M)
    scales = (maps.amax(dim=1) / LARGEST).clamp(min=torch.finfo(torch.float32).tiny)
    whole = (maps / scales[:, None]).round().to(torch.int16)
    return {"whole": packed.add(whole.numpy()), "scales": packed.add(scales.numpy())}


def _steps(
    captioner: Captioner, tokens: Tensor, ids: Sequence[int], logits: Tensor
) -> list[dict[str, Any]]:
    """What each row of the decoder reads and thinks likely, and which of it the sentence took.

    Args:
        captioner: Captioner that knows the words.
        tokens: (T,) what the rows read.
        ids: Tokens of the sentence; the row of each is that of the same number.
        logits: (T, vocabulary).
    """
    vocabulary = captioner.tokenizer.vocabulary
    probabilities = logits.softmax(dim=-1)
    steps = []
    for row, (token, shares) in enumerate(zip(tokens.tolist(), probabilities, strict=True)):
        likeliest = shares.topk(min(_NUM_NEXT_WORDS, len(shares)))
        step: dict[str, Any] = {
            "reads": vocabulary[token],
            "next": [vocabulary[number] for number in likeliest.indices.tolist()],
            "probabilities": likeliest.values.tolist(),
        }
        if row < len(ids):  # what comes after the end, or after a cut, was not taken
            own = shares[ids[row]]
            step |= {
                "predicts": vocabulary[ids[row]],
                "probability": float(own),
                "rank": int((shares > own).sum()),
            }
        steps.append(step)
    return steps
