"""Train a Vision Transformer, and see what it learned to look at.

    python train.py                                # the built-in scenes, five minutes on two cores
    python train.py classify --recipe NAME --out RUN
    python train.py caption --out RUN              # a captioner of scenes, or of --data DIR
    python train.py evaluate --weights W           # held-out accuracy of a checkpoint

A run folder holds recipe.toml, metrics.csv, curves.png, attention.png, report.md, and the
checkpoints best.safetensors and last.safetensors. Exit status: 0 done, 2 bad input, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minivit.command_line import Parser, add_common_flags, pick_device, run

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from minivit.training.caption_loop import CaptionEpoch
    from minivit.training.loop import Epoch, LabelledImages
    from minivit.training.recipes import SceneRecipe
    from minivit.vit import VisionTransformer

NUM_HELD_OUT = 2000  # scenes, for validation while training and for the test after it
DIFFICULTIES = ("full", "easy")  # the recipes train on full; both are reported


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; `argv` without the program's name."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help")):
        words = ["classify", *words]  # the command that needs no name
    arguments = make_parser().parse_args(words)
    return run(arguments.command, arguments)


# ---- classify ---------------------------------------------------------------------------------


def classify(arguments: argparse.Namespace) -> None:
    """Trains a classifier from scratch: data, model, epochs, and then what came out."""
    import torch
    from tqdm import tqdm

    from minivit.checkpoint import save_model
    from minivit.data.scenes import BACKGROUND, CLASS_NAMES, VALIDATION_SEED
    from minivit.training.loop import train
    from minivit.training.run_folder import save_figure, write_metrics, write_recipe
    from minivit.viz import curves_figure

    start = time.perf_counter()
    device = pick_device(arguments.device)
    recipe = merge(arguments)
    settings = recipe.settings
    torch.manual_seed(settings.seed)
    out: Path = arguments.out
    write_recipe(out / "recipe.toml", flatten(recipe, arguments.recipe))

    data = draw_scenes("training scenes", recipe, arguments, seed=settings.seed)
    validation = draw_scenes(
        "validation scenes", recipe, arguments, seed=VALIDATION_SEED, length=NUM_HELD_OUT
    )
    model = make_model(recipe).to(device)
    num_weights = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"{len(data):,} scenes of {len(CLASS_NAMES)} classes; a ViT of {num_weights / 1e6:.2f} M "
        f"weights: {recipe.depth} blocks of width {recipe.dim}"
    )

    epochs: list[Epoch] = []
    batches = -(-len(data) // settings.batch_size)
    with tqdm(total=settings.epochs * batches, unit="step", desc="training") as bar:

        def on_step(loss: float) -> None:
            bar.set_postfix_str(f"loss {loss:.2f}", refresh=False)
            bar.update()

        for epoch in train(
            model,
            data,
            validation,
            settings,
            device=device,
            num_patch_classes=BACKGROUND + 1,
            symmetric=True,
            on_step=on_step,
        ):
            epochs.append(epoch)
            bar.write(
                f"epoch {epoch.epoch:3d}  training loss {epoch.train_loss:.3f}  validation loss "
                f"{epoch.val_loss:.3f}, {100 * epoch.val_accuracy:.1f} % right",
                file=sys.stdout,
            )
            save_model(model, out / "last.safetensors")
            if epoch.val_accuracy >= max(each.val_accuracy for each in epochs):
                save_model(model, out / "best.safetensors")
            write_metrics(out / "metrics.csv", epochs)
            save_figure(curves_figure(epochs, chance=1 / len(CLASS_NAMES)), out / "curves.png")
    report(recipe, arguments, data, device, num_weights, start)


def merge(arguments: argparse.Namespace) -> SceneRecipe:
    """The recipe with the flags laid over it."""
    from minivit.training.recipes import RECIPES

    recipe = RECIPES[arguments.recipe]
    given = {
        name: getattr(arguments, name)
        for name in ("epochs", "batch_size", "lr", "precision")
        if getattr(arguments, name) is not None
    }
    settings = replace(recipe.settings, seed=arguments.seed, **given)
    return replace(recipe, settings=settings, num_scenes=arguments.limit or recipe.num_scenes)


def flatten(recipe: SceneRecipe, name: str) -> dict[str, int | float | str]:
    """A recipe as one table of plain values."""
    values = asdict(recipe)
    settings = values.pop("settings")
    del values["about"]
    sizes = {key: values.pop(key)[0] for key in ("image_size", "patch_size")}
    return {"recipe": name, "data": "scenes", **values, **sizes, **settings}


def draw_scenes(
    name: str,
    recipe: SceneRecipe,
    arguments: argparse.Namespace,
    *,
    seed: int,
    length: int | None = None,
    difficulty: str = "full",
) -> LabelledImages:
    """Draws scenes into memory, with a progress bar; by default as many as the recipe wants."""
    from tqdm import tqdm

    from minivit.data.loading import load_all
    from minivit.data.scenes import ScenesDataset
    from minivit.training.loop import LabelledImages

    scenes = ScenesDataset(
        seed,
        length or recipe.num_scenes,
        image_size=recipe.image_size,
        difficulty=difficulty,
        patch_size=recipe.patch_size,
    )
    with tqdm(total=len(scenes), unit="scene", desc=name, leave=False) as bar:
        return LabelledImages(*load_all(scenes, workers=arguments.workers, on_batch=bar.update))


def make_model(recipe: SceneRecipe) -> VisionTransformer:
    """An untrained ViT whose positions start as 2-D sines, so that neighbours begin alike."""
    import torch

    from minivit.config import ViTConfig
    from minivit.data.scenes import CLASS_NAMES
    from minivit.embeddings import sine_position_embedding
    from minivit.vit import VisionTransformer

    config = ViTConfig(
        image_size=recipe.image_size,
        patch_size=recipe.patch_size,
        dim=recipe.dim,
        depth=recipe.depth,
        num_heads=recipe.dim // 32,
        hidden_dim=4 * recipe.dim,
        num_classes=len(CLASS_NAMES),
        activation="gelu",
        layer_norm_eps=1e-6,
    )
    model = VisionTransformer(config, labels=CLASS_NAMES)
    assert model.pos_embed is not None
    with torch.no_grad():
        sines = sine_position_embedding(*model.grid_size, config.dim)
        model.pos_embed[0, model.num_prefix_tokens :] = sines / 2
    return model


# ---- caption ----------------------------------------------------------------------------------


def caption(arguments: argparse.Namespace) -> None:
    """Trains a captioner: its words, data, epochs, and then how true its captions are."""
    import torch
    from tqdm import tqdm

    from minivit.captioner import Captioner
    from minivit.checkpoint import load_model, save_model
    from minivit.training.caption_loop import train
    from minivit.training.caption_recipes import CAPTION_RECIPES, flatten
    from minivit.training.caption_run import (
        make_captioner,
        photo_data,
        photo_report,
        scene_data,
        scene_report,
    )
    from minivit.training.run_folder import save_figure, write_metrics, write_recipe, write_text
    from minivit.viz import curves_figure

    start = time.perf_counter()
    device = pick_device(arguments.device)
    scenes, out = arguments.data == "scenes", arguments.out
    name = arguments.recipe or ("scenes_captioner" if scenes else "catr_coco")
    recipe = CAPTION_RECIPES[name]
    given = {
        key: getattr(arguments, key)
        for key in ("epochs", "batch_size", "lr", "backbone_lr", "label_smoothing", "precision")
        if getattr(arguments, key) is not None
    }
    settings = replace(recipe.settings, seed=arguments.seed, **given)
    recipe = replace(recipe, settings=settings)
    if scenes and arguments.limit:
        recipe = replace(recipe, num_scenes=arguments.limit)
    torch.manual_seed(settings.seed)
    captioner = make_captioner(
        recipe, weights=arguments.weights, vocabulary=arguments.vocab, scenes=scenes
    ).to(device)
    if scenes:
        bars: list[Any] = []

        def progress(title: str, total: int) -> Callable[[int], object]:
            bars.append(tqdm(total=total, unit="scene", desc=title, leave=False))
            return bars[-1].update

        data = scene_data(captioner, recipe, workers=arguments.workers, bar=progress)
        for bar in bars:
            bar.close()
    else:
        data = photo_data(
            captioner,
            recipe,
            Path(arguments.data),
            workers=arguments.workers,
            skip_missing=arguments.skip_missing,
            limit=arguments.limit,
        )
    write_recipe(out / "recipe.toml", flatten(recipe, name, arguments.data))
    num_weights = sum(parameter.numel() for parameter in captioner.parameters())
    print(data.description)
    print(f"a captioner of {num_weights / 1e6:.2f} M weights, backbone included")

    epochs: list[CaptionEpoch] = []
    with tqdm(total=settings.epochs * data.steps_per_epoch, unit="step", desc="training") as steps:

        def on_step(loss: float) -> None:
            steps.set_postfix_str(f"loss {loss:.2f}", refresh=False)
            steps.update()

        for epoch in train(
            captioner,
            data.batches,
            data.validation,
            settings,
            steps_per_epoch=data.steps_per_epoch,
            device=device,
            on_step=on_step,
        ):
            epochs.append(epoch)
            steps.write(
                f"epoch {epoch.epoch:3d}  training loss {epoch.train_loss:.3f}  validation loss "
                f"{epoch.val_loss:.3f}, {100 * epoch.val_accuracy:.1f} % of words right",
                file=sys.stdout,
            )
            save_model(captioner, out / "last.safetensors")
            if epoch.val_loss <= min(each.val_loss for each in epochs):
                save_model(captioner, out / "best.safetensors")
            write_metrics(out / "metrics.csv", epochs)
            curves = curves_figure(epochs, loss="Loss of a word", accuracy="right words (%)")
            save_figure(curves, out / "curves.png")
    chosen = load_model(out / "best.safetensors", device=device, expected=Captioner)
    lines = scene_report(chosen) if scenes else photo_report(chosen, data)
    minutes, seconds = divmod(round(time.perf_counter() - start), 60)
    lines.append(f"{minutes} min {seconds} s in all; {data.description}")
    text = "# Captioner\n\n" + "".join(f"- {line}\n" for line in lines)
    write_text(
        out / "report.md",
        f"{text}- recipe {name}, {num_weights:,} weights, seed {settings.seed}; settings in "
        "recipe.toml\n\n![curves](curves.png)\n",
    )
    print("\n".join(lines))
    print(f"run folder: {out}")


# ---- what came out ----------------------------------------------------------------------------


def report(
    recipe: SceneRecipe,
    arguments: argparse.Namespace,
    data: LabelledImages,
    device: torch.device,
    num_weights: int,
    start: float,
) -> None:
    """Tests the best checkpoint, beside a linear probe, on new scenes; draws its attention."""
    from minivit.checkpoint import load_model
    from minivit.data.scenes import CLASS_NAMES, TEST_SEED
    from minivit.training.linear_probe import linear_probe
    from minivit.training.loop import evaluate
    from minivit.training.run_folder import save_figure, write_text
    from minivit.vit import VisionTransformer

    out: Path = arguments.out
    model = load_model(out / "best.safetensors", device=device, expected=VisionTransformer)
    lines = []
    for difficulty in DIFFICULTIES:
        test = draw_scenes(
            f"{difficulty} test scenes",
            recipe,
            arguments,
            seed=TEST_SEED,
            length=NUM_HELD_OUT,
            difficulty=difficulty,
        )
        _, accuracy = evaluate(model, test, device=device)
        probe = linear_probe(data, test, num_classes=len(CLASS_NAMES))
        lines.append(
            f"{len(test):,} {difficulty} test scenes: ViT {100 * accuracy:.1f} % right, linear "
            f"probe on raw pixels {100 * probe:.1f} %, chance {100 / len(CLASS_NAMES):.1f} %"
        )
        if difficulty == "full":
            hits, share = pointing(model, test, device)
            lines.append(
                f"class token, last block, mean over heads: its strongest patch shows the main "
                f"object in {100 * hits:.1f} % of these scenes; a random patch, {100 * share:.1f} %"
            )
            save_figure(gallery(model, test, device), out / "attention.png", dpi=150)
    minutes, seconds = divmod(round(time.perf_counter() - start), 60)
    lines.append(f"{minutes} min {seconds} s in all, {len(data):,} training scenes")
    text = "# Run on scenes\n\n" + "".join(f"- {line}\n" for line in lines)
    write_text(
        out / "report.md",
        f"{text}- recipe {arguments.recipe}, {num_weights:,} weights, seed "
        f"{recipe.settings.seed}; settings in recipe.toml\n\n![curves](curves.png)\n\n"
        "![class-token attention over held-out scenes](attention.png)\n",
    )
    print("\n".join(lines))
    print(f"run folder: {out}")


def attention_maps(model: VisionTransformer, images: torch.Tensor) -> torch.Tensor:
    """(n, rows, cols): what the class token looks at in the last block, mean over heads."""
    import torch

    from minivit.attention import AttentionRows
    from minivit.explain import class_attention

    maps = []
    with torch.no_grad():
        for first in range(0, len(images), 250):
            batch = images[first : first + 250]
            _, attentions = model(batch, return_attention=AttentionRows(blocks=[-1], queries=[0]))
            maps.append(class_attention(attentions, model))
    return torch.cat(maps).cpu()


def pointing(
    model: VisionTransformer, data: LabelledImages, device: torch.device
) -> tuple[float, float]:
    """How often the strongest patch shows the main object, and how often a random one would."""
    from minivit.training.loop import normalize

    assert data.patch_labels is not None
    maps = attention_maps(model, normalize(data.images, model, device))
    shown = data.patch_labels.flatten(1) == data.labels[:, None]  # (n, patches)
    peaks = maps.flatten(1).argmax(dim=1, keepdim=True)
    return shown.gather(1, peaks).float().mean().item(), shown.float().mean().item()


def gallery(model: VisionTransformer, data: LabelledImages, device: torch.device) -> Figure:
    """Class-token attention over the first held-out scenes."""
    from PIL import Image

    from minivit.training.loop import normalize
    from minivit.viz import gallery_figure

    images = data.images[:16]
    inputs = normalize(images, model, device)
    chosen = model(inputs).argmax(dim=1).tolist()
    assert model.labels is not None
    titles = [
        model.labels[guess]
        if guess == truth
        else f"{model.labels[guess]} (is {model.labels[truth]})"
        for guess, truth in zip(chosen, data.labels.tolist(), strict=False)
    ]
    return gallery_figure(
        [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images],
        attention_maps(model, inputs),
        titles,
        heading="Held-out scenes and what the class token looks at: last block, mean over heads; "
        "title: what the model says",
    )


# ---- evaluate ---------------------------------------------------------------------------------


def evaluate_checkpoint(arguments: argparse.Namespace) -> None:
    """Prints the held-out accuracy of a checkpoint on both difficulties."""
    from minivit.checkpoint import load_model
    from minivit.data.scenes import CLASS_NAMES, TEST_SEED
    from minivit.training.loop import evaluate
    from minivit.training.recipes import RECIPES
    from minivit.vit import VisionTransformer

    device = pick_device(arguments.device)
    model = load_model(arguments.weights, device=device, expected=VisionTransformer)
    if model.labels != CLASS_NAMES:
        raise ValueError(
            f"{arguments.weights}: a model of other classes than the {len(CLASS_NAMES)} of scenes"
        )
    recipe = replace(
        RECIPES["scenes"],
        image_size=model.config.image_size,
        patch_size=model.config.patch_size,
        num_scenes=arguments.limit or NUM_HELD_OUT,
    )
    for difficulty in DIFFICULTIES:
        name = f"{difficulty} test scenes"
        test = draw_scenes(name, recipe, arguments, seed=TEST_SEED, difficulty=difficulty)
        _, accuracy = evaluate(model, test, device=device)
        print(f"{len(test):,} {name}: {100 * accuracy:.2f} % right")


# ---- the flags --------------------------------------------------------------------------------


def make_parser() -> argparse.ArgumentParser:
    """All flags of all commands."""
    parser = Parser(prog="train.py", description=(__doc__ or "").split("\n\n")[0])
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    training = commands.add_parser("classify", help="train a classifier (the default)")
    training.set_defaults(command=classify)
    training.add_argument(
        "--recipe",
        choices=("scenes", "scenes-shipped"),
        default="scenes",
        help="scenes: five minutes on two cores; scenes-shipped: an hour, the weights inside the "
        "package (default: %(default)s)",
    )
    training.add_argument("--epochs", type=int, metavar="N", help="default: the recipe's")
    training.add_argument("--batch-size", type=int, metavar="N", help="default: the recipe's")
    training.add_argument("--lr", type=float, metavar="RATE", help="default: the recipe's")
    training.add_argument("--precision", choices=("fp32", "bf16"), help="default: the recipe's")
    training.add_argument(
        "--out", type=Path, default=Path("runs/scenes"), metavar="RUN", help="default: %(default)s"
    )

    captioning = commands.add_parser("caption", help="train a captioner")
    captioning.set_defaults(command=caption)
    captioning.add_argument(
        "--recipe",
        choices=("scenes_captioner", "catr_coco"),
        help="default: scenes_captioner on scenes, catr_coco on photos",
    )
    captioning.add_argument(
        "--data",
        default="scenes",
        metavar="DIR",
        help="scenes, or a folder of COCO captions or of Flickr8k, or a CSV (file, caption) "
        "(default: %(default)s)",
    )
    captioning.add_argument(
        "--weights",
        type=Path,
        metavar="W",
        help="a captioner to train further, or the backbone of a new one: a ViT or a ResNet "
        "(default: for scenes the shipped ViT)",
    )
    captioning.add_argument(
        "--vocab", type=Path, metavar="FILE", help="word-pieces of a new captioner of photos"
    )
    captioning.add_argument(
        "--skip-missing",
        action="store_true",
        help="leave out captions of photos that are not there, and say how many",
    )
    captioning.add_argument("--epochs", type=positive, metavar="N", help="default: the recipe's")
    captioning.add_argument("--batch-size", type=positive, metavar="N", help="the same")
    captioning.add_argument("--lr", type=float, metavar="RATE", help="the same")
    captioning.add_argument("--backbone-lr", type=float, metavar="RATE", help="0: it stays")
    captioning.add_argument("--label-smoothing", type=float, metavar="SHARE", help="the same")
    captioning.add_argument("--precision", choices=("fp32", "bf16"), help="the same")
    captioning.add_argument(
        "--out",
        type=Path,
        default=Path("runs/captioner"),
        metavar="RUN",
        help="default: %(default)s",
    )

    evaluation = commands.add_parser("evaluate", help="accuracy of a checkpoint on held-out data")
    evaluation.set_defaults(command=evaluate_checkpoint)
    evaluation.add_argument("--weights", type=Path, required=True, metavar="W", help=".safetensors")

    for command in (training, evaluation):
        command.add_argument(
            "--data", choices=("scenes",), default="scenes", help="default: %(default)s"
        )
    for command in (training, captioning, evaluation):
        command.add_argument(
            "--limit", type=positive, metavar="N", help="only the first N samples, for trying out"
        )
        command.add_argument(
            "--workers", type=int, default=2, metavar="N", help="processes that draw (default: 2)"
        )
        add_common_flags(command)
    return parser


def positive(text: str) -> int:
    """A whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
