"""visualize.py score: from flags to the four files."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from minivit.commands.outputs import outputs_of
from minivit.commands.pictures import heading
from minivit.commands.score_text import curves_csv, many, markdown, scores_csv
from minivit.commands.terminal import one_line, say
from minivit.files import replacing, save_figure
from minivit.plain_text import visible
from minivit.progress import Bar, progress_bars
from minivit.weights import weights_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from minivit.explain.scoring.examples import Examples
    from minivit.explain.scoring.score_rows import MethodScores
    from minivit.vit import VisionTransformer

NUM_SCENES = 100


def score(model: VisionTransformer, arguments: argparse.Namespace) -> None:
    """Scores maps of a model and writes DIR/scores.md, scores.csv, curves.csv and curves.png.

    Raises:
        ValueError: Bad flags, photos or masks; a method that is named does not work for the model.
        OSError: A file cannot be written.
    """
    from minivit.explain import scores
    from minivit.explain.scoring.score import usable_methods
    from minivit.viz import scores_figure

    outputs = outputs_of(arguments)
    mark = outputs.mark()
    tables = [arguments.out / name for name in ("scores.md", "scores.csv", "curves.csv")]
    curves = arguments.out / f"curves.{arguments.format or 'png'}"
    outputs.claim({curves: mark}, beside=tables)
    if arguments.crop_fraction is not None:
        model.preprocess = replace(model.preprocess, crop_fraction=arguments.crop_fraction)
    with progress_bars() as bar:
        data, description = _open(model, arguments, bar)
        methods: Sequence[str] | None = arguments.methods
        if methods is None:
            usable, refusals = usable_methods(model, data[0])
            methods = list(usable)
            for name, reason in refusals.items():
                line = one_line(ValueError(reason)).removeprefix("error: ")
                print(f"left out: {name} ({line})", file=sys.stderr)
        rows = scores(
            model,
            data,
            methods,
            heads=arguments.heads,
            seed=arguments.seed,
            probes=arguments.probes,
            draws=arguments.draws,
            batch_size=arguments.batch_size,
            bar=bar,
        )
    above = heading(arguments, f"{description}\nweights: {weights_title(arguments.weights)}")
    figure = scores_figure(rows, heading=above)
    text = markdown(rows, heading=_heading(model, arguments, description), draws=arguments.draws)
    for path in _write(curves, text, rows, figure, mark=mark, dpi=arguments.dpi):
        say(path)


def check_folders(arguments: argparse.Namespace) -> None:
    """Compares the folders in the flags with each other; imports no torch.

    Raises:
        ValueError: Masks of scenes, or figures among the pictures.
    """
    if arguments.data == "scenes":
        if arguments.masks is not None:
            raise ValueError(
                f"--masks {arguments.masks}: the objects of scenes are known; give the folder of "
                "the photos, --data DIR"
            )
        return
    for folder in (arguments.data, arguments.masks):
        if folder is not None and arguments.out.resolve() == Path(folder).resolve():
            raise ValueError(
                f"--out {arguments.out}: curves.png would lie among the pictures there; choose "
                "another folder"
            )


def _open(
    model: VisionTransformer, arguments: argparse.Namespace, bar: Bar
) -> tuple[Examples, str]:
    """The pictures, all of which can be opened, and a line that describes them."""
    from minivit.explain import PhotoExamples, SceneExamples

    if arguments.data == "scenes":
        count = arguments.limit or NUM_SCENES
        return SceneExamples(
            model, count
        ), f"{many(count, 'built-in scene')} that no training has seen"
    photos = PhotoExamples(model, Path(arguments.data), arguments.masks, limit=arguments.limit or 0)
    rules = photos.check(bar("photos", len(photos)))
    description = f"{many(len(photos), 'photo')} of {Path(arguments.data).resolve().name}"
    if rules:
        kinds = ", ".join(f"{number:,} read as {rule}" for rule, number in sorted(rules.items()))
        description += f", masks of {arguments.masks.resolve().name}: {kinds}"
    return photos, description


def _heading(model: VisionTransformer, arguments: argparse.Namespace, description: str) -> str:
    config, preprocess = model.config, model.preprocess
    height, width = preprocess.image_size
    return visible(
        f"{description}. Weights: `{arguments.weights.name}`, {config.depth} blocks of "
        f"{config.num_heads} heads, patches of {config.patch_size[0]} x {config.patch_size[1]}; "
        f"pictures of {height} x {width} by mode {preprocess.mode}, crop fraction "
        f"{preprocess.crop_fraction:.3g}. Class: the predicted one. Seed {arguments.seed}."
    )


def _write(
    curves: Path,
    text: str,
    rows: Sequence[MethodScores],
    figure: Figure,
    *,
    mark: str,
    dpi: int | None,
) -> list[Path]:
    """Writes all four files, or none of them."""
    texts = {"scores.md": text, "scores.csv": scores_csv(rows), "curves.csv": curves_csv(rows)}
    targets = [*(curves.with_name(name) for name in texts), curves]
    with contextlib.ExitStack() as files:
        paths = [files.enter_context(replacing(target)) for target in targets]
        for path, content in zip(paths, texts.values(), strict=False):
            path.write_text(content, encoding="utf-8", newline="")
        save_figure(figure, paths[-1], mark=mark, dpi=dpi)
    return targets
