"""Draws how far each fault of the museum moves a map, and prints how far in figures.

From the root of the repository, after `make real`, in about a minute on one core::

    OMP_NUM_THREADS=1 python -m tutorials.pictures.faults tutorials/pictures/faults.png

The maps are those of one photo and of the trained DINOv2 ViT-S/14. It has no head, and relevance
needs a class. So it is given one of three classes, the free photos: a class's weights are what the
class token says of the mirrored photo, minus the mean of the three. The photo is cut to 16 × 25
patches, as many as 20 × 20. The table, in the format of `tutorials/faults.md`, has beside these
figures those of random weights with sharp attention (`tests/explain/museum.py`).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

import minivit
from minivit.files import replacing
from minivit.preprocess import open_image
from minivit.viz.page import MARGIN, NOTE_SIZE, PAGE_WIDTH, Page, Slot
from minivit.viz.panels import add_scale, overlay, region_pixels, show_photo, show_pixels
from tests.explain.museum import (
    EXHIBITS,
    Exhibit,
    faulty,
    likeness,
    mean_likeness,
    right_maps,
    sharpened,
)
from weights_convert import real

PHOTOS = Path(__file__).parents[1] / "photos"
CLASSES = ("coffee", "cat", "astronaut")
SHOWN = "cat"  # not of class 0, which a hard-coded class would get right
ROWS, COLS = 16, 25
COLUMNS = 5
GAP, TITLE, CAPTION, HEAD, FOOT = 0.12, 0.24, 0.34, 0.5, 0.62  # inches


def trained() -> minivit.VisionTransformer:
    """The model of `make real` with a head of three classes, the free photos."""
    path = real.path()
    if path is None:
        raise SystemExit("no trained weights here: run 'make real'")
    backbone = minivit.load_model(path)
    assert isinstance(backbone, minivit.VisionTransformer)
    height, width = (side * count for side, count in zip((14, 14), (ROWS, COLS), strict=True))
    preprocess = replace(backbone.preprocess, image_size=(height, width), crop_fraction=1.0)
    config = replace(backbone.config, num_classes=len(CLASSES))
    model = minivit.VisionTransformer(config, preprocess=preprocess, labels=CLASSES).eval()
    pictures = torch.stack([preprocess(photo(name)) for name in CLASSES])
    with torch.no_grad():
        tokens = backbone.encode(pictures.flip(-1))[:, 0]  # (B, N, D) -> (B, D)
    unit = tokens / tokens.norm(dim=1, keepdim=True)
    head = {"head.weight": unit - unit.mean(dim=0), "head.bias": torch.zeros(len(CLASSES))}
    model.load_state_dict(backbone.state_dict() | head)
    return model


def photo(name: str) -> Image.Image:
    """One of the free photos."""
    return open_image(PHOTOS / f"{name}.jpg")


def main() -> None:
    parser = argparse.ArgumentParser(description="draws how far each fault moves a map")
    parser.add_argument("out", type=Path, help="PNG to write")
    out: Path = parser.parse_args().out
    model = trained()
    image = model.preprocess(photo(SHOWN))
    shown = [exhibit for exhibit in EXHIBITS if exhibit.view is not None]
    rights: dict[tuple[str, str], list[Tensor]] = {}
    maps: dict[str, tuple[Tensor, Tensor]] = {}
    print("| fault | map | random weights | trained weights |\n| --- | --- | --- | --- |")
    for exhibit in shown:
        cells = []
        for name, subject in {"random": sharpened(), "trained": (model, image[None])}.items():
            place = (name, exhibit.view)
            if place not in rights:
                rights[place] = right_maps(exhibit.view, *subject)
            wrong = faulty(exhibit, *subject)
            cells.append(in_words(mean_likeness(rights[place], wrong), ", "))
            maps[exhibit.name] = (rights[place][0], wrong[0])
        print(f"| {exhibit.name} | {exhibit.view} | {' | '.join(cells)} |", flush=True)
    with replacing(out) as place:
        draw(model, shown, maps).figure.savefig(place, format="png", dpi=100)


def in_words(figures: tuple[float, float], between: str) -> str:
    """Two correlations with two digits each, and no minus before a zero."""
    return between.join(f"{round(figure, 2) + 0.0:.2f}" for figure in figures)


def draw(
    model: minivit.VisionTransformer,
    shown: list[Exhibit],
    pairs: dict[str, tuple[Tensor, Tensor]],
) -> Page:
    """A panel a map: the right ones, and after each those of its faults; the photo last."""
    panels: list[tuple[str, str, Tensor | None]] = []
    for view in dict.fromkeys(exhibit.view for exhibit in shown):
        own = [exhibit for exhibit in shown if exhibit.view == view]
        if view not in ("rollout, strongest head", "rollout, one row"):
            panels.append((f"{view}, right", "", pairs[own[0].name][0]))
        for exhibit in own:
            right, wrong = pairs[exhibit.name]
            if not torch.equal(right, wrong):  # a model without registers shows none
                panels.append((exhibit.name, in_words(likeness(right, wrong), ", ranks "), wrong))
    panels.append(("the photo", "", None))

    width = (PAGE_WIDTH - 2 * MARGIN + GAP) / COLUMNS - GAP
    height = width * ROWS / COLS
    step = TITLE + height + CAPTION
    num_rows = -(-len(panels) // COLUMNS)
    page = Page(PAGE_WIDTH, HEAD + num_rows * step + FOOT)
    page.write_heading("One photo, one trained model, and what each fault makes of its map")
    source = photo(SHOWN)
    box = model.preprocess.crop_box(*source.size)
    ground = region_pixels(source, box, grey=True)
    for number, (title, caption, values) in enumerate(panels):
        row, col = divmod(number, COLUMNS)
        slot = Slot(MARGIN + col * (width + GAP), HEAD + row * step + TITLE, width, height)
        axes = page.axes(slot)
        if values is None:
            show_photo(axes, source, box)
        else:
            show_pixels(axes, ground, box)
            overlay(axes, values - values.min(), box)
        page.write(title, (slot.center, slot.top - 0.03), room=width, size=9.0, above=True)
        page.write(caption, (slot.center, slot.top + height + 0.03), room=width, size=9.0)
    top = page.height - FOOT
    add_scale(page, Slot(MARGIN + 0.25, top + 0.15, 1.6, 0.13), {0: "smallest", 1: "largest"})
    notes = (
        "colour: from each map's smallest to its largest value; below a map: Pearson's correlation "
        "with the right one, and that of ranks"
    )
    page.write(notes, (MARGIN + 2.4, top + 0.15), room=8.0, size=NOTE_SIZE, align="left")
    return page


if __name__ == "__main__":
    main()
