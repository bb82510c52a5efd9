"""The parts of `train.py caption`: data, captioner, and the report on what it learned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from minivit.captioner import Captioner
from minivit.checkpoint import load_model
from minivit.config import CaptionerConfig, ResNetConfig
from minivit.data.augmentation import (
    Augmentation,
    ColorJitter,
    RandomHorizontalFlip,
    RandomQuarterTurn,
)
from minivit.data.captions import (
    CaptionBatch,
    CaptionDataset,
    CaptionSet,
    SceneCaptions,
    collate_captions,
    hold_out,
    read_captions,
)
from minivit.data.loading import load_all
from minivit.data.scenes import CAPTION_WORDS, TEST_SEED, VALIDATION_SEED, Scene, make_scene
from minivit.generation import generate
from minivit.preprocess import Preprocess, open_image
from minivit.resnet import ResNet
from minivit.tokenizer import Tokenizer, WordLevel, WordPiece
from minivit.training.caption_metrics import MissingPackageError, caption_scores, scene_scores
from minivit.training.caption_recipes import CaptionRecipe
from minivit.training.grounding import Grounding, best, ground
from minivit.vit import VisionTransformer

SHIPPED_VIT = Path(__file__).parents[1] / "weights" / "scenes.safetensors"
NUM_HELD_OUT = 2000  # scenes, for validation while training and for the test after it


@dataclass(frozen=True)
class CaptionData:
    """What a captioner is trained and judged on.

    Attributes:
        batches: Of each epoch.
        validation: Held-out pairs.
        steps_per_epoch: Batches an epoch.
        description: One line for the user.
        held_out: Photos with their captions for the scores at the end; empty for scenes.
    """

    batches: Callable[[int], Iterable[CaptionBatch]]
    validation: Callable[[int], Iterable[CaptionBatch]]
    steps_per_epoch: int
    description: str
    held_out: Sequence[tuple[Path, Sequence[str]]] = ()


def make_captioner(
    recipe: CaptionRecipe, *, weights: Path | None, vocabulary: Path | None, scenes: bool
) -> Captioner:
    """A new captioner around a given backbone, or the given captioner to go on with.

    Args:
        recipe: What to build.
        weights: A minivit checkpoint: a captioner is trained further, a ViT or ResNet becomes the
            backbone of a new one; None: the shipped ViT, or a ResNet without training.
        vocabulary: Word-pieces for a new captioner of photos, one a line.
        scenes: Whether it is to speak of scenes.

    Raises:
        ValueError: A checkpoint of another kind than the recipe's backbone, or no vocabulary.
    """
    if weights is None and recipe.backbone == "vit":
        weights = SHIPPED_VIT
    start = None if weights is None else load_model(weights)
    if isinstance(start, Captioner):
        return start
    tokenizer: Tokenizer
    if scenes:
        tokenizer = WordLevel(CAPTION_WORDS)
        longest = SceneCaptions(0, 1, tokenizer).max_length
    elif vocabulary is None:
        raise ValueError("captions of photos need a vocabulary: give BERT's with --vocab vocab.txt")
    else:
        tokenizer, longest = WordPiece.from_file(vocabulary), 128
    max_length = recipe.max_length or longest
    if isinstance(start, VisionTransformer):
        if recipe.backbone != "vit":
            raise ValueError(f"{weights}: a ViT, this recipe wants a {recipe.backbone}")
        config = recipe.config(len(tokenizer), max_length, start.config)
        captioner = Captioner(config, tokenizer, preprocess=start.preprocess)
    else:
        config = recipe.config(len(tokenizer), max_length)
        _check_resnet(start, config, weights)
        captioner = Captioner(config, tokenizer)
    if start is not None:
        captioner.backbone.load_state_dict(start.state_dict())
    return captioner


def _check_resnet(start: ResNet | None, config: CaptionerConfig, weights: Path | None) -> None:
    wanted = config.backbone
    if start is None or not isinstance(wanted, ResNetConfig):
        return
    if start.config.depth != wanted.depth:
        raise ValueError(
            f"{weights}: a ResNet-{start.config.depth}, this recipe wants a ResNet-{wanted.depth}"
        )


# ---- scenes --------------------------------------------------------------------------------------


def scene_data(
    captioner: Captioner,
    recipe: CaptionRecipe,
    *,
    workers: int,
    bar: Callable[[str, int], Callable[[int], object]],
) -> CaptionData:
    """Scenes with their captions, drawn into memory.

    Args:
        captioner: Whose words and picture size are used.
        recipe: How many, and the size of a batch.
        workers: Processes that draw.
        bar: Gets a name and a number, gives a function that is told of progress.
    """
    settings = recipe.settings
    size = captioner.preprocess.image_size

    def draw(name: str, seed: int, length: int) -> tuple[Tensor, Tensor]:
        scenes = SceneCaptions(seed, length, captioner.tokenizer, image_size=size)
        images, tokens = load_all(scenes, workers=workers, on_batch=bar(name, length))
        return images, tokens

    train = draw("training scenes", settings.seed, recipe.num_scenes)
    held = draw("validation scenes", VALIDATION_SEED, NUM_HELD_OUT)
    pad = captioner.tokenizer.pad_id

    def batches(
        data: tuple[Tensor, Tensor], order: Tensor, batch_size: int
    ) -> Iterable[CaptionBatch]:
        for chosen in torch.split(order, batch_size):
            tokens = data[1][chosen]
            longest = int((tokens != pad).sum(dim=1).max())
            yield CaptionBatch(data[0][chosen], None, tokens[:, :longest])

    def shuffled(epoch: int) -> Iterable[CaptionBatch]:
        random = torch.Generator().manual_seed(1_000_003 * settings.seed + epoch)
        return batches(train, torch.randperm(len(train[0]), generator=random), settings.batch_size)

    return CaptionData(
        shuffled,
        lambda _epoch: batches(held, torch.arange(len(held[0])), 250),
        -(-len(train[0]) // settings.batch_size),
        f"{len(train[0]):,} scenes, a caption each",
    )


# ---- photos --------------------------------------------------------------------------------------


def photo_data(
    captioner: Captioner,
    recipe: CaptionRecipe,
    location: Path,
    *,
    workers: int,
    skip_missing: bool,
    limit: int | None,
) -> CaptionData:
    """COCO captions, Flickr8k or a CSV; without a validation split of its own, a tenth is held out.

    Args:
        captioner: Whose words and preprocessing are used.
        recipe: The size of a batch, and whether to augment.
        location: A folder or a CSV.
        workers: Processes that open photos; 0: this one.
        skip_missing: Leave out captions of photos that are not there, instead of stopping.
        limit: Only so many photos.

    Raises:
        ValueError: See `minivit.data.captions.read_captions`.
    """
    settings = recipe.settings
    train = read_captions(location, "train", skip_missing=skip_missing)
    note = ""
    try:
        held = read_captions(location, "val", skip_missing=skip_missing)
    except ValueError:
        train, held = hold_out(train, 0.1, settings.seed)
        note = f"; no validation split: {len(held.pictures):,} photos held out"
    if limit is not None:
        train = CaptionSet(train.pictures[:limit], train.description)
    sides = mentions_sides(train)
    if recipe.augment and sides:
        note += f"; no flips and quarter turns: {sides:,} captions say left or right"
    transform = Augmentation(
        transforms=(
            *((RandomQuarterTurn(),) if recipe.augment and not sides else ()),
            *(
                (ColorJitter(brightness=(0.5, 1.3), contrast=(0.8, 1.5), saturation=(0.2, 1.5)),)
                if recipe.augment
                else ()
            ),
            *((RandomHorizontalFlip(),) if recipe.augment and not sides else ()),
        ),
        preprocess=captioner.preprocess,
    )
    length = captioner.config.max_length + 1
    data = CaptionDataset(
        train,
        captioner.tokenizer,
        max_length=length,
        transform=partial(_augmented, transform, captioner.preprocess),
        seed=settings.seed,
    )
    held_data = CaptionDataset(
        held,
        captioner.tokenizer,
        max_length=length,
        transform=partial(_plain, captioner.preprocess),
    )
    collate = partial(collate_captions, pad_id=captioner.tokenizer.pad_id)

    def shuffled(epoch: int) -> Iterable[CaptionBatch]:
        data.set_epoch(epoch)
        random = torch.Generator().manual_seed(1_000_003 * settings.seed + epoch)
        return DataLoader(
            data,
            settings.batch_size,
            shuffle=True,
            generator=random,
            num_workers=workers,
            collate_fn=collate,
        )

    def validation(_epoch: int) -> Iterable[CaptionBatch]:
        return DataLoader(held_data, settings.batch_size, num_workers=workers, collate_fn=collate)

    return CaptionData(
        shuffled,
        validation,
        -(-len(data) // settings.batch_size),
        data.description + note,
        [(picture.path, picture.captions) for picture in held.pictures],
    )


def _augmented(
    augmentation: Augmentation,
    preprocess: Preprocess,
    image: Image.Image,
    rng: np.random.Generator,
) -> Tensor:
    """Resized first: smaller pictures are faster to change. A turn keeps the longest side."""
    return augmentation(preprocess.view(image), rng)


def _plain(preprocess: Preprocess, image: Image.Image, _rng: np.random.Generator) -> Tensor:
    return preprocess(image)


def mentions_sides(captions: CaptionSet) -> int:
    """How many captions say left or right, and would be wrong of a mirrored photo."""
    return sum(
        bool({"left", "right"} & set(text.lower().replace(".", " ").split()))
        for picture in captions.pictures
        for text in picture.captions
    )


# ---- what came out -------------------------------------------------------------------------------


def write_captions(
    captioner: Captioner, pictures: Sequence[Image.Image], *, batch_size: int = 250
) -> list[str]:
    """Greedy captions of pictures in memory."""
    texts = []
    for start in range(0, len(pictures), batch_size):
        memory = captioner.look_at(pictures[start : start + batch_size])
        texts += [
            captioner.tokenizer.decode(found[0].token_ids) for found in generate(captioner, memory)
        ]
    return texts


def scene_report(captioner: Captioner, *, num_scenes: int = NUM_HELD_OUT) -> list[str]:
    """How true the captions of new scenes are, and whether words look at what they name.

    The layer and head of the pointing game are chosen on the validation scenes.
    """
    captioner.eval()
    size = captioner.preprocess.image_size

    def draw(seed: int) -> list[Scene]:
        return [make_scene(seed, index, image_size=size) for index in range(num_scenes)]

    test = draw(TEST_SEED)
    scores = scene_scores(write_captions(captioner, [scene.image for scene in test]), test)
    lines = [
        f"{len(test):,} test scenes, greedy captions: {100 * scores['attribute_words']:.1f} % of "
        f"attribute words right, {100 * scores['exact_objects']:.1f} % of captions with every "
        f"object exactly right, {100 * scores['relations']:.1f} % of relations true"
    ]
    chosen = ground(captioner, draw(VALIDATION_SEED))
    rows = ground(captioner, test)
    for kind in ("shape", "colour", "size"):
        for align in ("predicts", "reads"):
            where = best(chosen, kind, align)
            lines.append(_say(_same(rows, where)))
    return lines


def _same(rows: Sequence[Grounding], where: Grounding) -> Grounding:
    """The row of another set of scenes with the same word, layer, head and alignment."""
    key = (where.kind, where.layer, where.head, where.align)
    return next(row for row in rows if (row.kind, row.layer, row.head, row.align) == key)


def _say(row: Grounding) -> str:
    head = "mean over heads" if row.head is None else f"head {row.head}"
    return (
        f"pointing, {row.kind} words, step that {row.align} the word, block {row.layer}, {head}: "
        f"{100 * row.hits:.1f} % of peaks on the object (chance {100 * row.chance:.1f} %), "
        f"{100 * row.mass:.1f} % of the mass (the object is {100 * row.area:.1f} % of the picture)"
    )


def photo_report(captioner: Captioner, data: CaptionData) -> list[str]:
    """BLEU-4, ROUGE-L and CIDEr-D of greedy captions of the held-out photos."""
    captioner.eval()
    paths = [path for path, _ in data.held_out]
    texts: list[str] = []
    for start in range(0, len(paths), 8):  # no more photos in memory than are looked at
        texts += write_captions(captioner, [open_image(path) for path in paths[start : start + 8]])
    try:
        scores = caption_scores([list(captions) for _, captions in data.held_out], texts)
    except MissingPackageError as error:
        return [f"no BLEU and CIDEr: {error}"]
    return [
        f"{len(texts):,} held-out photos, greedy captions: BLEU-4 {scores['BLEU-4']:.3f}, ROUGE-L "
        f"{scores['ROUGE-L']:.3f}, CIDEr-D {scores['CIDEr-D']:.3f}"
    ]
