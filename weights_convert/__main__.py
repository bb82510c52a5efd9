"""python -m weights_convert: a public checkpoint, by file or by name, to a minivit checkpoint."""

from __future__ import annotations

import argparse
import re
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from minivit.commands.inputs import need_files
from minivit.commands.terminal import Parser, program_name, run, say
from minivit.files import refuse_inputs
from weights_convert.formats import FORMATS

if TYPE_CHECKING:
    from minivit.captioner import Captioner
    from minivit.resnet import ResNet
    from minivit.vit import VisionTransformer

_DESCRIPTION = """\
Turns a public ViT checkpoint into a minivit .safetensors file: weights, architecture,
preprocessing and class names in one. The format is recognised from the file."""

_ADVICE = "name another file with -o"

_EXAMPLES = """\
examples:
  python -m weights_convert B_16_imagenet1k.pth -o weights/B_16_imagenet1k.safetensors
  python -m weights_convert vit_small_patch16_384      download, check, convert to weights/
  python -m weights_convert --list                     what can be downloaded by name
  python -m weights_convert tuned.safetensors --to timm -o tuned_timm.safetensors
"""


def main(arguments: list[str] | None = None) -> int:
    """Parses the command line and converts.

    Args:
        arguments: As typed; None: those of the process.

    Returns:
        The exit status.
    """
    parser = Parser(
        prog=program_name("python -m weights_convert"),
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "input",
        nargs="?",
        metavar="INPUT",
        help="a checkpoint file, a folder from the Hugging Face hub, or a name from --list",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="the .safetensors to write (default: weights/NAME.safetensors)",
    )
    parser.add_argument("--list", action="store_true", help="print the models known by name")
    group = parser.add_argument_group("where the file does not tell")
    group.add_argument("--format", metavar="F", help=f"{', '.join(FORMATS)} (default: recognised)")
    group.add_argument(
        "--name",
        metavar="NAME",
        help="published name of the model, such as vit_small_patch16_384 (default: of the file)",
    )
    group.add_argument("--num-heads", type=_positive, metavar="N", help="attention heads")
    group.add_argument(
        "--activation", metavar="A", help="gelu, gelu_tanh, quick_gelu or relu, inside the MLPs"
    )
    group.add_argument(
        "--image-size",
        type=_size,
        metavar="HxW",
        help="pixels that the position embeddings are made for, where they are not a square",
    )
    group.add_argument(
        "--pooling",
        choices=("cls", "mean"),
        help="what the head sees: the class token, or the mean over the patches",
    )
    group.add_argument(
        "--which",
        metavar="NAME",
        help="the set of weights, where a checkpoint holds several, such as state_dict_ema "
        "(default: by the rule of the code that wrote it)",
    )
    group.add_argument(
        "--prefix",
        metavar="P",
        help="the model whose names begin so, such as student., where a file holds several",
    )
    group.add_argument(
        "--labels",
        metavar="FILE",
        help="class names: a line each, a JSON list or object, or a folder of class folders",
    )
    group.add_argument("--head", metavar="FILE", help="a linear head in a file of its own (DINOv2)")
    group.add_argument(
        "--vocab", metavar="FILE", help="word-pieces of a captioner, one a line (CATR)"
    )
    parser.add_argument(
        "--to", choices=("timm",), help="the other way: write a minivit checkpoint in this layout"
    )
    parser.add_argument("--quiet", action="store_true", help="say nothing, show no progress bar")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parsed = parser.parse_args(arguments)
    if not parsed.list and parsed.input is None:
        parser.error("give a file or a name, or --list")
    return run(_list if parsed.list else _convert, parsed)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r}: expected HEIGHTxWIDTH, such as 224x336")
    return int(match[1]), int(match[2] or match[1])


def _list(arguments: argparse.Namespace) -> int:
    from weights_convert.catalogue import catalogue

    rows = [("name", "source", "parameters", "size", "licence")] + [
        (
            entry.name,
            entry.source,
            f"{entry.parameters:,}",
            f"{entry.megabytes:,} MB",
            entry.licence,
        )
        for entry in catalogue().values()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        name, source, parameters, size, licence = (
            text.rjust(width) if column in (2, 3) else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        print(f"{name}  {source}  {parameters}  {size}  {licence}".rstrip())
    return 0


def _convert(arguments: argparse.Namespace) -> int:
    from weights_convert.foreign_files import foreign_kind

    path = Path(arguments.input)
    is_there = path.exists() or foreign_kind(path)
    need_files([arguments.labels, arguments.head, arguments.vocab])
    if not is_there and not (path.suffix and "/" in arguments.input):
        return _convert_by_name(arguments)
    if not is_there:
        raise FileNotFoundError(f"{path}: no such file; check the path")
    output = Path(arguments.output or Path("weights") / f"{_name_of(path)}.safetensors")
    if arguments.to:
        _refuse_options(arguments)

        from weights_convert.exporting import export

        refuse_inputs([output], [path], advice=_ADVICE)
        tensors = export(path, output)
        _say(arguments, f"wrote {output}: {len(tensors)} tensors by {arguments.to}'s names")
        return 0
    _run(
        arguments,
        path,
        output,
        name=arguments.name,
        head=arguments.head,
        vocabulary=arguments.vocab,
    )
    return 0


def _refuse_options(arguments: argparse.Namespace) -> None:
    """A minivit checkpoint tells all; what was given besides would be passed over in silence."""
    for name in (
        *("format", "name", "num_heads", "activation", "image_size", "pooling", "which"),
        *("prefix", "labels", "head", "vocab"),
    ):
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} does not apply to --to; leave it away")


def _convert_by_name(arguments: argparse.Namespace) -> int:
    from weights_convert.catalogue import catalogue, find

    if Path(arguments.input).suffix in (".safetensors", ".pth", ".pt", ".bin", ".npz"):
        known = Path(arguments.input).stem in catalogue()
        hint = f", or give {Path(arguments.input).stem} to download it" if known else ""
        raise FileNotFoundError(f"{arguments.input}: no such file; check the path{hint}")
    entry = find(arguments.input)

    from weights_convert.download import cache_folder, download
    from weights_convert.foreign_files import no_weights

    folder = cache_folder() / entry.name
    fetch = partial(
        download, progress=not arguments.quiet, remember=lambda line: _say(arguments, line)
    )
    path = fetch(entry.address, folder / entry.file_name, sha256=entry.sha256, check=no_weights)
    extra = {
        name: fetch(address, folder / name, check=no_weights if "head" in name else None)
        for address, name in entry.extra
    }
    head = next((file for name, file in extra.items() if "head" in name), None)
    vocabulary = extra.get("vocab.txt")
    output = Path(arguments.output or Path("weights") / f"{entry.name}.safetensors")
    _run(
        arguments,
        path,
        output,
        name=arguments.name or entry.name,
        head=arguments.head or head,
        vocabulary=arguments.vocab or vocabulary,
        format=arguments.format or entry.format,
    )
    return 0


def _run(
    arguments: argparse.Namespace,
    path: Path,
    output: Path,
    *,
    name: str | None,
    head: str | Path | None,
    vocabulary: str | Path | None,
    format: str | None = None,
) -> None:
    from weights_convert.conversion import convert

    inputs = [path, *(each for each in (head, vocabulary, arguments.labels) if each)]
    refuse_inputs([output], inputs, advice=_ADVICE)
    converted = convert(
        path,
        output,
        format=format or arguments.format,
        name=name,
        num_heads=arguments.num_heads,
        activation=arguments.activation,
        image_size=arguments.image_size,
        pooling=arguments.pooling,
        which=arguments.which,
        prefix=arguments.prefix,
        labels=arguments.labels,
        head=head,
        vocabulary=vocabulary,
    )
    count = sum(tensor.numel() for tensor in converted.model.state_dict().values())
    _say(
        arguments,
        f"{path.name}: {converted.format}, {count:,} parameters, {_summary(converted.model)}",
        *converted.notes,
        f"wrote {output} ({output.stat().st_size / 1e6:.1f} MB)",
    )


def _summary(model: VisionTransformer | ResNet | Captioner) -> str:
    """The architecture in a few words."""
    from minivit.captioner import Captioner
    from minivit.resnet import ResNet

    if isinstance(model, Captioner):
        config = model.config
        return (
            f"{config.encoder_depth} + {config.decoder_depth} blocks of width {config.dim}, "
            f"{config.num_heads} heads, {config.vocabulary_size:,} words"
        )
    if isinstance(model, ResNet):
        return f"ResNet-{model.config.depth} without classifier"
    vit = model.config
    return (
        f"{vit.depth} blocks of width {vit.dim}, {vit.num_heads} heads, patches of "
        f"{vit.patch_size[0]}x{vit.patch_size[1]}, {vit.image_size[0]}x{vit.image_size[1]} pixels, "
        f"{vit.num_classes} outputs"
    )


def _say(arguments: argparse.Namespace, *lines: str) -> None:
    if not arguments.quiet:
        say(*lines)


def _name_of(path: Path) -> str:
    return path.absolute().name if path.is_dir() else path.name.removesuffix(path.suffix)


if __name__ == "__main__":
    sys.exit(main())
