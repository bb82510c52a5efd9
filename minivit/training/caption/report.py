"""The results of a captioner's run, in words.

On scenes: how many words, objects and relations of the captions are true, and whether words look at
what they name. On photos: BLEU-4, ROUGE-L and CIDEr-D.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from minivit.captioner import Captioner
from minivit.checkpoint import load_model, save_model
from minivit.data.captions.dataset import CaptionSet
from minivit.data.scenes.dataset import TEST_SEED, VALIDATION_SEED, Scene, make_scene
from minivit.generation import generate
from minivit.preprocess import open_image
from minivit.training.caption.grounding import Grounding, best, best_maps, ground
from minivit.training.caption.scene_truth import scene_scores
from minivit.training.caption.scores import MissingPackageError, caption_scores
from minivit.training.task import Bar, Report

BORDER = 0.03  # tolerance of the second figure, about 3 of 96 pixels


def write_captions(
    captioner: Captioner, pictures: Sequence[Image.Image], *, batch_size: int = 250
) -> list[str]:
    """Greedy captions of pictures in memory."""
    texts = []
    for start in range(0, len(pictures), batch_size):
        memory = captioner.encode_photos(pictures[start : start + batch_size])
        sentences = generate(captioner.next_words(memory))
        texts += [captioner.tokenizer.decode(likeliest.token_ids) for likeliest, *_ in sentences]
    return texts


def scene_report(folder: Path, device: torch.device, *, num_scenes: int) -> Report:
    """Tests the best checkpoint on new scenes: are captions true, do words look at what they name?

    The block and head of the pointing game are chosen on the validation scenes, and stored with the
    weights.

    Args:
        folder: Run folder.
        device: Device of the captioner.
        num_scenes: Number of test scenes, and of validation scenes.
    """
    captioner = load_model(folder / "best.safetensors", device=device, expected=Captioner)
    size = captioner.preprocess.image_size

    def draw(seed: int) -> list[Scene]:
        return [make_scene(seed, index, image_size=size) for index in range(num_scenes)]

    test = draw(TEST_SEED)
    captions = write_captions(captioner, [scene.image for scene in test])
    scores = scene_scores(captions, test)
    nearly = scene_scores(captions, test, tolerance=BORDER)
    shares = {name: f"{100 * share:.1f} %" for name, share in scores.items()}
    lines = [
        f"{len(test):,} test scenes, greedy captions: {shares['attribute_words']} of attribute "
        f"words right, {shares['exact_objects']} of captions with every object exactly right, "
        f"{shares['relations']} of relations true ({100 * nearly['relations']:.1f} % if objects "
        f"may lie {100 * BORDER:.0f} % of the picture elsewhere, across the border to another "
        f"word), {shares['whole']} of captions right as a whole ({100 * nearly['whole']:.1f} %)"
    ]
    chosen = ground(captioner, draw(VALIDATION_SEED))
    _store_best_maps(folder / "best.safetensors", chosen)
    rows = ground(captioner, test)
    for kind in ("shape", "colour", "size"):
        for align in ("predicts", "reads"):
            lines.append(_pointing_line(_same(rows, best(chosen, kind, align))))
    return Report(lines)


def _store_best_maps(path: Path, rows: Sequence[Grounding]) -> None:
    """Writes into a checkpoint which of its maps point best; its tensors stay bit for bit."""
    stored = load_model(path, dtype=None, expected=Captioner)
    stored.best_maps = best_maps(rows)
    save_model(stored, path)


def _same(rows: Sequence[Grounding], row: Grounding) -> Grounding:
    """The row of another set of scenes with the same word, block, head and alignment."""
    key = (row.kind, row.block, row.head, row.align)
    return next(each for each in rows if (each.kind, each.block, each.head, each.align) == key)


def _pointing_line(row: Grounding) -> str:
    """The figures of a row in one line."""
    head = "mean over heads" if row.head is None else f"head {row.head}"
    return (
        f"pointing, {row.kind} words, step that {row.align} the word, block {row.block}, {head}: "
        f"{100 * row.hits:.1f} % of peaks on the object (chance {100 * row.chance:.1f} %), "
        f"{100 * row.mass:.1f} % of the mass (the object is {100 * row.area:.1f} % of the picture)"
    )


def photo_report(folder: Path, device: torch.device, *, validation: CaptionSet, bar: Bar) -> Report:
    """BLEU-4, ROUGE-L and CIDEr-D of the best checkpoint's greedy captions.

    Args:
        folder: Run folder.
        device: Device of the captioner.
        validation: Held-out photos with the captions of people.
        bar: Progress bar of the captions.
    """
    captioner = load_model(folder / "best.safetensors", device=device, expected=Captioner)
    paths = [picture.path for picture in validation.pictures]
    on_photos = bar("captioning", len(paths))
    texts: list[str] = []
    for start in range(0, len(paths), 8):  # photos in memory at once
        some = [open_image(path) for path in paths[start : start + 8]]
        texts += write_captions(captioner, some)
        on_photos(len(some))
    try:
        scores = caption_scores([list(picture.captions) for picture in validation.pictures], texts)
    except MissingPackageError as error:
        return Report([f"no BLEU and CIDEr: {error}"])
    line = (
        f"{len(texts):,} held-out photos, greedy captions: BLEU-4 {scores['BLEU-4']:.3f}, ROUGE-L "
        f"{scores['ROUGE-L']:.3f}, CIDEr-D {scores['CIDEr-D']:.3f}"
    )
    return Report([line])
