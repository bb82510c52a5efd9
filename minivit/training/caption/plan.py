"""The parts of `train.py caption`: captioner, data, and the report on what it learned."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from minivit.captioner import Captioner
from minivit.checkpoint import load_model
from minivit.config import CaptionerConfig, ResNetConfig, ViTConfig
from minivit.data.augmentation.pipeline import (
    Augmentation,
    ColorJitter,
    RandomHorizontalFlip,
    RandomQuarterTurn,
    Resize,
)
from minivit.data.captions.dataset import (
    CaptionDataset,
    CaptionSet,
    NoSplitError,
    SceneCaptions,
    collate_captions,
    hold_out,
    read_captions,
)
from minivit.data.loading import load_all
from minivit.data.scenes.dataset import CAPTION_WORDS, TEST_SEED, VALIDATION_SEED, Scene, make_scene
from minivit.generation import generate
from minivit.preprocess import Preprocess, open_image
from minivit.tokenizer import Tokenizer, WordLevel, WordPiece
from minivit.training.caption.grounding import Grounding, best, ground
from minivit.training.caption.scores import MissingPackageError, caption_scores, scene_scores
from minivit.training.caption.task import CaptionedImages, CaptionedPhotos, CaptionTask
from minivit.training.recipes import CaptionRecipe
from minivit.training.task import Bar, Plan, Report
from minivit.vit import VisionTransformer

NUM_HELD_OUT = 2000  # scenes, for validation while training and for the test after it


def plan_captioner(recipe: CaptionRecipe, bar: Bar) -> Plan:
    """Captioner, data and report of a run.

    Args:
        recipe: What is wanted.
        bar: Shows how far drawing or captioning has come.

    Raises:
        ValueError: Data, weights or a vocabulary that cannot be used; see `make_captioner` and
            `minivit.data.captions.dataset.read_captions`.
    """
    captioner = make_captioner(recipe)
    plan = plan_scenes if recipe.data == "scenes" else plan_photos
    return plan(captioner, recipe, bar)


def make_captioner(recipe: CaptionRecipe) -> Captioner:
    """A new captioner around a given backbone, or the given captioner to go on with.

    The recipe's `weights` is a minivit checkpoint: a captioner is trained further, a ViT or ResNet
    becomes the backbone of a new one; "": the shipped ViT, or a ResNet without training.

    Args:
        recipe: What to build.

    Raises:
        ValueError: A checkpoint of another kind than the recipe's backbone, or no vocabulary.
    """
    scenes = recipe.data == "scenes"
    weights = recipe.weights or ("scenes" if recipe.backbone == "vit" else None)
    start = None if weights is None else load_model(weights)
    if isinstance(start, Captioner):
        return start
    tokenizer: Tokenizer
    if scenes:
        tokenizer = WordLevel(CAPTION_WORDS)
        longest = SceneCaptions(0, 1, tokenizer).max_length
    elif not recipe.vocab:
        raise ValueError("captions of photos need a vocabulary: give BERT's with --vocab vocab.txt")
    else:
        tokenizer, longest = WordPiece.from_file(Path(recipe.vocab)), 128
    max_length = recipe.max_length or longest
    found: str = recipe.backbone
    if start is not None:
        found = "vit" if isinstance(start, VisionTransformer) else f"resnet{start.config.depth}"
    if found != recipe.backbone:
        raise ValueError(f"{weights}: a {found}, this recipe wants a {recipe.backbone}")
    if isinstance(start, VisionTransformer):
        config = captioner_config(recipe, len(tokenizer), max_length, start.config)
        captioner = Captioner(config, tokenizer, preprocess=start.preprocess)
    else:
        config = captioner_config(recipe, len(tokenizer), max_length)
        captioner = Captioner(config, tokenizer)
    if start is not None:
        captioner.backbone.load_state_dict(start.state_dict())
    return captioner


def captioner_config(
    recipe: CaptionRecipe, vocabulary_size: int, max_length: int, vit: ViTConfig | None = None
) -> CaptionerConfig:
    """The captioner to build.

    Args:
        recipe: Widths, depths and the kind of backbone.
        vocabulary_size: Words of the tokenizer.
        max_length: Positions for words.
        vit: Of the backbone, where that is a ViT.
    """
    depth = 50 if recipe.backbone == "resnet50" else 101
    return CaptionerConfig(
        backbone=vit or ResNetConfig(depth=depth, dilate_last_stage=True),
        vocabulary_size=vocabulary_size,
        max_length=max_length,
        dim=recipe.dim,
        num_heads=recipe.num_heads,
        hidden_dim=recipe.hidden_dim,
        encoder_depth=recipe.encoder_depth,
        decoder_depth=recipe.decoder_depth,
        head_dim=recipe.head_dim,
        dropout=recipe.dropout,
    )


# ---- scenes --------------------------------------------------------------------------------------


def plan_scenes(captioner: Captioner, recipe: CaptionRecipe, bar: Bar) -> Plan:
    """Scenes with their captions, drawn into memory."""
    size, tokenizer = captioner.preprocess.image_size, captioner.tokenizer

    def draw(name: str, seed: int, length: int) -> CaptionedImages:
        scenes = SceneCaptions(seed, length, tokenizer, image_size=size)
        drawn = load_all(scenes, workers=recipe.workers, on_batch=bar(name, length))
        images, tokens = drawn
        return CaptionedImages(images, tokens, tokenizer.pad_id)

    train = draw("training scenes", recipe.seed, recipe.num_training_scenes())
    held = draw("validation scenes", VALIDATION_SEED, NUM_HELD_OUT)

    def report(folder: Path, device: torch.device) -> Report:
        chosen = load_model(folder / "best.safetensors", device=device, expected=Captioner)
        return Report(scene_report(chosen, num_scenes=NUM_HELD_OUT))

    return Plan(
        task=CaptionTask(captioner, backbone_lr=recipe.backbone_lr),
        train=train,
        validation=held,
        lines=[f"{len(train):,} scenes, a caption each", _size(captioner)],
        report=report,
    )


def _size(captioner: Captioner) -> str:
    weights = sum(parameter.numel() for parameter in captioner.parameters())
    return f"a captioner of {weights / 1e6:.2f} M weights, backbone included"


# ---- photos --------------------------------------------------------------------------------------


def plan_photos(captioner: Captioner, recipe: CaptionRecipe, bar: Bar) -> Plan:
    """COCO captions, Flickr8k or a CSV; without a validation split of its own, a tenth is held out.

    Raises:
        ValueError: See `minivit.data.captions.dataset.read_captions`; of both splits.
    """
    location = Path(recipe.data)
    train = read_captions(location, "train", skip_missing=recipe.skip_missing)
    note = ""
    try:
        held = read_captions(location, "val", skip_missing=recipe.skip_missing)
    except NoSplitError:
        train, held = hold_out(train, 0.1, recipe.seed)
        note = f"; no validation split: {len(held.pictures):,} photos held out"
    if recipe.limit:
        train = CaptionSet(train.pictures[: recipe.limit], train.description)
        note += f"; the first {len(train.pictures):,} photos"
    sides = mentions_sides(train)
    if recipe.augment and sides:
        note += f"; no flips and quarter turns: {sides:,} captions say left or right"
    plain = make_augmentation(captioner.preprocess)
    augmentation = plain
    if recipe.augment:
        augmentation = make_augmentation(captioner.preprocess, colours=True, turns=not sides)
    length = captioner.config.max_length + 1
    make = partial(CaptionDataset, tokenizer=captioner.tokenizer, max_length=length)
    data = make(train, transform=augmentation, seed=recipe.seed)
    collate = partial(collate_captions, pad_id=captioner.tokenizer.pad_id)

    def report(folder: Path, device: torch.device) -> Report:
        chosen = load_model(folder / "best.safetensors", device=device, expected=Captioner)
        return Report(photo_report(chosen, held, bar("captioning", len(held.pictures))))

    return Plan(
        task=CaptionTask(captioner, backbone_lr=recipe.backbone_lr),
        train=CaptionedPhotos(data, collate, recipe.workers),
        validation=CaptionedPhotos(make(held, transform=plain), collate, recipe.workers),
        lines=[data.description + note, _size(captioner)],
        report=report,
        evaluation_batch=recipe.batch_size,
    )


def make_augmentation(
    preprocess: Preprocess, *, colours: bool = False, turns: bool = False
) -> Augmentation:
    """CATR's augmentation, or parts of it.

    Photos are resized first: smaller pictures are faster to change, and a turn keeps the longest
    side.

    Args:
        preprocess: Size, filter and normalisation.
        colours: Whether light and colours vary.
        turns: Whether photos are turned and mirrored.
    """
    jitter = ColorJitter(brightness=(0.5, 1.3), contrast=(0.8, 1.5), saturation=(0.2, 1.5))
    return Augmentation(
        transforms=(
            Resize.of(preprocess),
            *((RandomQuarterTurn(),) if turns else ()),
            *((jitter,) if colours else ()),
            *((RandomHorizontalFlip(),) if turns else ()),
        ),
        preprocess=preprocess,
    )


def mentions_sides(captions: CaptionSet) -> int:
    """How many captions say left or right, and would be wrong of a mirrored photo."""
    return sum(
        bool(re.search(r"\b(left|right)\b", text, re.IGNORECASE))
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
        memory = captioner.encode_photos(pictures[start : start + batch_size])
        sentences = generate(captioner.next_words(memory))
        texts += [captioner.tokenizer.decode(best.token_ids) for best, *_ in sentences]
    return texts


def scene_report(captioner: Captioner, *, num_scenes: int = NUM_HELD_OUT) -> list[str]:
    """How true the captions of new scenes are, and whether words look at what they name.

    The block and head of the pointing game are chosen on the validation scenes.
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
    """The row of another set of scenes with the same word, block, head and alignment."""
    key = (where.kind, where.block, where.head, where.align)
    return next(row for row in rows if (row.kind, row.block, row.head, row.align) == key)


def _say(row: Grounding) -> str:
    head = "mean over heads" if row.head is None else f"head {row.head}"
    return (
        f"pointing, {row.kind} words, step that {row.align} the word, block {row.block}, {head}: "
        f"{100 * row.hits:.1f} % of peaks on the object (chance {100 * row.chance:.1f} %), "
        f"{100 * row.mass:.1f} % of the mass (the object is {100 * row.area:.1f} % of the picture)"
    )


def photo_report(
    captioner: Captioner, held: CaptionSet, on_photos: Callable[[int], object]
) -> list[str]:
    """BLEU-4, ROUGE-L and CIDEr-D of greedy captions of the held-out photos."""
    captioner.eval()
    paths = [picture.path for picture in held.pictures]
    texts: list[str] = []
    for start in range(0, len(paths), 8):  # no more photos in memory than are looked at
        some = [open_image(path) for path in paths[start : start + 8]]
        texts += write_captions(captioner, some)
        on_photos(len(some))
    try:
        scores = caption_scores([list(picture.captions) for picture in held.pictures], texts)
    except MissingPackageError as error:
        return [f"no BLEU and CIDEr: {error}"]
    return [
        f"{len(texts):,} held-out photos, greedy captions: BLEU-4 {scores['BLEU-4']:.3f}, ROUGE-L "
        f"{scores['ROUGE-L']:.3f}, CIDEr-D {scores['CIDEr-D']:.3f}"
    ]
