"""Augmented photos to look at before training, so that mistakes of a recipe are seen in time."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from minivit.data.photos.dataset import PhotoDataset
from minivit.data.photos.sets import in_turn
from minivit.data.photos.splits import read_photos
from minivit.data.seeds import sample_rng
from minivit.files import refuse_inputs
from minivit.training.classify.data import make_augmentation
from minivit.training.classify.model import load_start, make_classifier
from minivit.training.recipes import ClassifyRecipe
from minivit.training.task import Bar
from minivit.viz import contact_sheet

NUM_EPOCHS = 5


def preview_figure(
    recipe: ClassifyRecipe, bar: Bar, *, num_photos: int, out: Path | None = None
) -> tuple[Figure, list[str]]:
    """A row for each of some training photos: as the model is given it, then augmented.

    These are the pictures of the first epochs of a training with this recipe. MixUp, CutMix and
    erasing come after them, and are not shown.

    Args:
        recipe: Recipe with photos, no scenes, and their augmentation.
        bar: Progress bar of the check of photos.
        num_photos: Number of rows, of each class in turn.
        out: File that the figure will be written to, which may be none of the photos; None: none.

    Returns:
        The figure, and lines for the user.

    Raises:
        ValueError: As `plan_classifier`.
    """
    start = load_start(recipe)
    splits = read_photos(
        recipe.data,
        seed=recipe.seed,
        strict=recipe.strict,
        workers=recipe.workers,
        bar=bar,
        held_out=recipe.held_out,
        labels=recipe.labels,
    )
    for part in (splits.train, splits.validation):  # a CSV file names photos anywhere
        refuse_inputs([out] if out else [], part.paths)
    names, labels = splits.class_names, splits.train.labels
    model, _ = make_classifier(recipe, names, start)
    augmentation = make_augmentation(recipe, model.preprocess)
    photos = PhotoDataset(splits.train, augmentation, seed=recipe.seed)
    images: list[Image.Image] = []
    titles: list[str] = []
    for index in in_turn(labels)[:num_photos]:
        picture = photos.open_picture(index)
        images.append(model.preprocess.view(picture))
        titles.append(names[labels[index]])
        for epoch in range(NUM_EPOCHS):
            rng = sample_rng(recipe.seed, epoch, index)
            images.append(augmentation.view(picture, rng))
            titles.append(f"epoch {epoch + 1}")
    lines = [splits.description, augmentation.describe()]
    return contact_sheet(images, titles, columns=1 + NUM_EPOCHS), lines
