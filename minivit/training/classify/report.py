"""The results of a classifier's run, in words and pictures.

On scenes: accuracy beside a linear probe on raw pixels, and whether the class token looks at the
main object. On photos: accuracy and calibration, the classes that are confused, and the wrong
answers of which the model was most certain, with the attention of its class token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from minivit.attention import AttentionRows
from minivit.checkpoint import load_model
from minivit.data.photos.dataset import PhotoDataset
from minivit.data.scenes.dataset import CLASS_NAMES, TEST_SEED
from minivit.explain import class_attention, position_scores, position_similarity
from minivit.explain.pointing import pointing_game
from minivit.files import save_figure
from minivit.plain_text import visible
from minivit.training.classify.data import LabelledImages, PhotoData
from minivit.training.classify.linear_probe import linear_probe
from minivit.training.classify.predictions import predict_all
from minivit.training.classify.scores import (
    MOST_IN_A_TABLE,
    class_scores,
    classes_table,
    escaped,
    most_confidently_wrong,
    most_confused,
    summary,
)
from minivit.training.task import Report
from minivit.vit import VisionTransformer
from minivit.viz import confusion_figure, gallery_figure, mistakes_figure, positions_figure
from minivit.weights import weights_title

DIFFICULTIES = ("full", "easy")  # the recipes train on full; both are reported
NUM_MISTAKES = 12


# ---- scenes --------------------------------------------------------------------------------------


def scene_report(
    folder: Path,
    device: torch.device,
    *,
    train: LabelledImages,
    draw: Callable[[str, int, int, str], LabelledImages],
    num_scenes: int,
) -> Report:
    """Tests the best checkpoint, beside a linear probe, on new scenes.

    Draws where its class token looks, and how similar its position embeddings are to each other.

    Args:
        folder: Run folder.
        device: Device of the model.
        train: Samples that the probe learns from.
        draw: Function of name, seed, number and difficulty that draws scenes.
        num_scenes: Number of test scenes of each difficulty.
    """
    model = load_model(folder / "best.safetensors", device=device, expected=VisionTransformer)
    tests = [
        draw(f"{difficulty} test scenes", TEST_SEED, num_scenes, difficulty)
        for difficulty in DIFFICULTIES
    ]
    probes = linear_probe(train, tests, num_classes=len(CLASS_NAMES))
    lines = []
    for difficulty, test, probe in zip(DIFFICULTIES, tests, probes, strict=True):
        scores = class_scores(*predict_all(model, test, device=device))
        lines.append(
            f"{len(test):,} {difficulty} test scenes: ViT {100 * scores.top1:.1f} % right, linear "
            f"probe on raw pixels {100 * probe:.1f} %, chance {100 / len(CLASS_NAMES):.1f} %"
        )
    full = tests[0]
    hits, share = pointing(model, full, device)
    lines.append(
        "class token, last block, mean over heads: its strongest patch shows the main object in "
        f"{100 * hits:.1f} % of the full scenes; a random patch, {100 * share:.1f} %"
    )
    weights = f"weights: {weights_title(folder / 'best.safetensors')}"
    save_figure(gallery(model, full, device, weights), folder / "attention.png")
    pictures = "![class-token attention over held-out scenes](attention.png)\n"
    rows, cols = model.grid_size
    if min(rows, cols) > 1:
        similarity = position_similarity(model)
        lines.append(f"position embeddings: {position_scores(similarity)}")
        heading = f"Position embeddings, {rows} × {cols} patches\n{weights}"
        save_figure(positions_figure(similarity, heading=heading), folder / "positions.png")
        pictures += "\n![similarity of position embeddings](positions.png)\n"
    return Report(lines, pictures)


@torch.no_grad()
def attention_maps(model: VisionTransformer, images: Tensor) -> Tensor:
    """(n, rows, cols): attention of the class token in the last block, mean over heads."""
    maps = []
    for first in range(0, len(images), 32):
        batch = images[first : first + 32]
        _, attentions = model(batch, return_attention=AttentionRows(blocks=[-1], queries=[0]))
        maps.append(class_attention(attentions))
    return torch.cat(maps).cpu()


def pointing(
    model: VisionTransformer, data: LabelledImages, device: torch.device
) -> tuple[float, float]:
    """How often the strongest patch shows the main object, and how often a random one would."""
    assert data.patch_labels is not None
    maps = attention_maps(model, model.preprocess.normalize(data.images.to(device)))
    game = pointing_game(maps, data.patch_labels == data.labels[:, None, None])
    return game.hits.float().mean().item(), game.chance.mean().item()


@torch.no_grad()
def gallery(
    model: VisionTransformer, data: LabelledImages, device: torch.device, weights: str
) -> Figure:
    """Class-token attention over the first held-out scenes, under a line that names the weights."""
    images = data.images[:16]
    inputs = model.preprocess.normalize(images.to(device))
    answers = model(inputs).argmax(dim=1).tolist()
    assert model.labels is not None
    titles = []
    for answer, truth in zip(answers, data.labels.tolist(), strict=False):
        note = "" if answer == truth else f" (is {model.labels[truth]})"
        titles.append(f"{model.labels[answer]}{note}")
    return gallery_figure(
        [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images],
        attention_maps(model, inputs),
        titles,
        heading="Held-out scenes and what the class token looks at: last block, mean over heads\n"
        f"title: what the model says; {weights}",
    )


# ---- photos --------------------------------------------------------------------------------------


def photo_report(
    folder: Path,
    device: torch.device,
    *,
    validation: PhotoDataset,
    test: PhotoDataset | None,
    workers: int,
    batch_size: int,
    notes: Sequence[str],
) -> Report:
    """Measures the best checkpoint; draws the confusions and the worst mistakes.

    Args:
        folder: Run folder.
        device: Device of the model.
        validation: Photos by which the best epoch was chosen.
        test: Photos by which nothing was chosen, or None; the figures are of these if there are
            any.
        workers: Processes that open photos.
        batch_size: Photos at once.
        notes: Remarks on the data, for the report.
    """
    model = load_model(folder / "best.safetensors", device=device, expected=VisionTransformer)
    assert model.labels is not None
    lines = []
    parts = [("validation", validation)] + ([("test", test)] if test is not None else [])
    for name, photos in parts:
        logits, labels = predict_all(
            model, PhotoData(photos, workers), device=device, batch_size=batch_size
        )
        scores = class_scores(logits, labels)
        lines.append(f"{len(labels):,} {name} photos: {summary(scores)}")
    drawn = ""
    if len(model.labels) <= MOST_IN_A_TABLE:
        weights = f"{name} photos; weights: {weights_title(folder / 'best.safetensors')}"
        figure = confusion_figure(scores.confusion, model.labels, heading=weights)
        save_figure(figure, folder / "confusion.png")
        drawn = "![confusions](confusion.png)\n\n"
    more = "".join(f"- {visible(note)}\n" for note in notes)
    more += f"\nThe rest is about the {name} photos.\n\n{drawn}"
    if pairs := most_confused(scores, model.labels, 10):
        more += "## Most confused\n\n| is | the model says | photos | of that class |\n"
        more += "| --- | --- | ---: | ---: |\n"
        more += "".join(
            f"| {escaped(truth)} | {escaped(answer)} | {count} | {100 * share:.0f} % |\n"
            for truth, answer, count, share in pairs
        )
    if wrong := most_confidently_wrong(logits, labels, NUM_MISTAKES):
        figure = mistakes(model, photos, logits, labels, wrong, device, heading=weights)
        save_figure(figure, folder / "mistakes.png")
        more += "\n## Most sure, and wrong\n\n![mistakes](mistakes.png)\n\n"
        more += "".join(f"- {escaped(photos.name(index))}\n" for index in wrong)
    more += f"\n## Classes\n\n{classes_table(scores, model.labels)}"
    return Report(lines, more)


def mistakes(
    model: VisionTransformer,
    photos: PhotoDataset,
    logits: Tensor,
    labels: Tensor,
    wrong: Sequence[int],
    device: torch.device,
    *,
    heading: str,
) -> Figure:
    """Photos beside the attention of the class token."""
    assert model.labels is not None
    pictures = [photos.open_picture(index) for index in wrong]
    views = [model.preprocess.view(each) for each in pictures]
    inputs = torch.stack([model.preprocess(each) for each in pictures]).to(device)
    titles = []
    for index in wrong:
        probabilities = logits[index].softmax(dim=0)
        answer, truth = int(probabilities.argmax()), int(labels[index])
        certainty = f"{100 * probabilities[answer]:.0f} %"
        titles.append(f"says {model.labels[answer]} ({certainty}), is {model.labels[truth]}")
    return mistakes_figure(views, attention_maps(model, inputs), titles, heading=heading)
