"""What the commands that draw photos share: a figure for each, whatever the others are like.

A photo that cannot be used is named in one line on standard error and the rest still come out. A
figure is written completely or not at all, and named on standard output. Nothing here imports torch
before it is needed.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from minivit.commands.terminal import one_line
from minivit.files import FIGURE_FORMATS

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image


VECTOR_DPI = 300  # of the photos and maps in a PDF or SVG file: what print asks for


@dataclass(frozen=True)
class Picture:
    """A picture that gets a figure.

    Attributes:
        name: Name in the figure.
        photo: Picture that is shown.
        seen: Picture that the model gets; the same as `photo`, or the same in another size.
    """

    name: str
    photo: Image.Image
    seen: Image.Image

    def in_photo(self, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """A region in pixels of what is seen -> in pixels of what is shown."""
        scale = self.photo.width / self.seen.width
        left, top, right, bottom = box
        return left * scale, top * scale, right * scale, bottom * scale


@dataclass(frozen=True)
class Drawing:
    """What a command has to show of a picture.

    Attributes:
        figure: Figure of it.
        remark: Words to print behind the figure's name, or "".
        table: Text of the CSV file beside the figure; "": none.
        lines: Lines to print below.
    """

    figure: Figure
    remark: str = ""
    table: str = ""
    lines: Sequence[str] = ()


Draw = Callable[[Picture], Drawing]


def draw_pictures(
    paths: Sequence[str],
    out: Path,
    draw: Draw,
    *,
    scene: int,
    scene_size: tuple[int, int],
    file_format: str | None = None,
    dpi: int | None = None,
    debug: bool = False,
) -> int:
    """Writes DIR/<image stem>.png for each photo, or DIR/scene.png of a built-in scene.

    Args:
        paths: Files of photos; none: a built-in scene.
        out: Folder of the figures, made when it is not there; or the file of the only one.
        draw: Makes a figure.
        scene: Number of the built-in scene.
        scene_size: Height and width of a scene as the model sees it.
        file_format: Format of the figures, "png", "pdf" or "svg"; None: as `figure_path` has it.
        dpi: Dots per inch; None: as `write_figure` has it.
        debug: Whether a photo that cannot be used raises its error.

    Returns:
        The exit status.

    Raises:
        ValueError: A figure would overwrite a photo, or there is no such scene.
        OSError: A figure cannot be written.
    """
    targets = name_targets(paths or ["scene"], out, file_format)
    if not paths:
        _write(draw(built_in_scene(scene_size, scene)), targets[0], dpi)
        return 0
    return _draw_photos(paths, targets, draw, dpi=dpi, debug=debug)


def _draw_photos(
    paths: Sequence[str], targets: Sequence[Path], draw: Draw, *, dpi: int | None, debug: bool
) -> int:
    from tqdm import tqdm

    from minivit.preprocess import BadImageError, open_image

    pairs = list(zip(paths, targets, strict=True))
    status = 0
    # disable=None: a bar on a terminal only; a log gets nothing but the lines that matter.
    quiet = True if len(pairs) < 2 else None
    for path, target in tqdm(pairs, unit="picture", disable=quiet, leave=False):
        try:
            photo = open_image(path)
            drawing = draw(Picture(Path(path).name, photo, photo))
        except BadImageError as error:
            if debug:
                raise
            tqdm.write(complaint(path, error), file=sys.stderr)
            status = 2
        else:
            _write(drawing, target, dpi)
    return status


def _write(drawing: Drawing, path: Path, dpi: int | None) -> None:
    """Writes the figure, with the table where there is one, or neither; then prints the rest."""
    from tqdm import tqdm

    from minivit.files import replacing

    table = path.with_suffix(".csv")
    with contextlib.ExitStack() as files:
        if drawing.table:  # it gets its name at the end, once the figure is there
            try:
                temporary = files.enter_context(replacing(table))
            except OSError as error:
                raise _unwritable(table, error) from error
            temporary.write_text(drawing.table, encoding="utf-8", newline="")
        write_figure(drawing.figure, path, drawing.remark, dpi)
    for line in [str(table)] * bool(drawing.table) + list(drawing.lines):
        tqdm.write(line if line.isprintable() else repr(line))


def complaint(path: str, error: ValueError) -> str:
    """The error in one line that names the photo."""
    message = one_line(error)
    return message if path in message else one_line(ValueError(f"{path}: {error}"))


def built_in_scene(image_size: tuple[int, int], number: int) -> Picture:
    """A scene that no training has seen: drawn for the model, and once more larger for the figure.

    Raises:
        ValueError: The number is negative.
    """
    from minivit.data.scenes.dataset import TEST_SEED, make_scene

    if number < 0:
        raise ValueError(f"--seed {number}: the scenes are numbered from 0")
    height, width = image_size
    factor = math.ceil(512 / max(height, width))
    seen = make_scene(TEST_SEED, number, image_size=(height, width))
    shown = make_scene(TEST_SEED, number, image_size=(factor * height, factor * width))
    main_object = seen.objects[0]
    name = f"built-in scene {number}: {main_object.colour} {main_object.shape}"
    return Picture(name, shown.image, seen.image)


def figure_path(out: Path, stem: str, file_format: str | None = None) -> Path:
    """The file of a figure: DIR/<stem>.png, or what --out names where it ends as a figure does.

    Args:
        out: Value of --out; an existing folder is one, whatever its name.
        stem: Name in a folder, without its ending.
        file_format: Value of --format; None: the ending of --out, else "png".

    Raises:
        ValueError: --format is another one than the ending of --out.
    """
    ending = out.suffix.lower().removeprefix(".")
    if ending not in FIGURE_FORMATS or out.is_dir():
        return out / f"{stem}.{file_format or FIGURE_FORMATS[0]}"
    if file_format not in (None, ending):
        raise ValueError(
            f"--out {out}: ends in .{ending} and --format is {file_format}; leave out one of both"
        )
    return out


def name_targets(paths: Sequence[str], out: Path, file_format: str | None = None) -> list[Path]:
    """The file of each picture's figure; of equal stems the later ones get -2, -3, …

    Args:
        paths: Files of pictures.
        out: As in `figure_path`.
        file_format: As in `figure_path`.

    Raises:
        ValueError: A picture would be overwritten by a figure, or several would share a file.
    """
    inputs = {Path(path).resolve() for path in paths}
    taken: set[str] = set()
    targets = []
    for path in paths:
        stem = name = Path(path).stem
        number = 1
        while name.casefold() in taken:  # folders of some systems do not tell A.png from a.png
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        target = figure_path(out, name, file_format)
        if target == out and len(paths) > 1:
            raise ValueError(
                f"--out {out}: names one figure, and {len(paths)} pictures get one each; give a "
                f"folder, and the format by --format {out.suffix.lower().removeprefix('.')}"
            )
        if target.resolve() in inputs:
            raise ValueError(
                f"{target}: is an input and would be overwritten; choose another --out"
            )
        targets.append(target)
    return targets


def write_figure(figure: Figure, path: Path, remark: str = "", dpi: int | None = None) -> None:
    """Saves a figure in the format of its ending, completely or not at all, and says where.

    Args:
        figure: Figure to write.
        path: File to write.
        remark: Words to print behind the name.
        dpi: Dots per inch; None: of a PNG file the figure's own, of others 300.

    Raises:
        OSError: It cannot be written; the message advises another --out.
    """
    from tqdm import tqdm

    from minivit.files import save_figure

    if dpi is None and path.suffix.lower() != ".png":
        dpi = VECTOR_DPI
    try:
        save_figure(figure, path, dpi=dpi)
    except OSError as error:
        raise _unwritable(path, error) from error
    parts = [str(path), remark] if remark else [str(path)]
    tqdm.write(": ".join(part if part.isprintable() else repr(part) for part in parts))


def heading(arguments: argparse.Namespace, text: str) -> str:
    """The text above a figure, or "" with --no-heading."""
    return "" if arguments.no_heading else text


def _unwritable(path: Path, error: OSError) -> OSError:
    return OSError(f"{path}: cannot be written ({error.strerror or error}); choose another --out")
