"""What the commands that draw photos share: a figure for each, whatever the others are like.

A photo that cannot be used is named in one line on standard error and the rest still come out. A
figure is written completely or not at all, and named on standard output. Nothing here imports torch
before it is needed.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from minivit.commands.outputs import Outputs, unwritable
from minivit.commands.terminal import one_line
from minivit.files import FIGURE_FORMATS, cut_name
from minivit.plain_text import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image


_LONGEST_STEM = 255 - len(".png")  # bytes, by most file systems
_OF_ONE_FILE = (errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EILSEQ)  # not of all of them
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
    outputs: Outputs,
    scene: int,
    scene_size: tuple[int, int],
    with_tables: bool = False,
    file_format: str | None = None,
    dpi: int | None = None,
    debug: bool = False,
) -> int:
    """Writes DIR/<image stem>.png for each photo, or DIR/scene.png of a built-in scene.

    Args:
        paths: Files of photos; none: a built-in scene.
        out: Folder of the figures, made when it is not there; or the file of the only one.
        draw: Makes a figure.
        outputs: Rule that says which files may be written.
        scene: Number of the built-in scene.
        scene_size: Height and width of a scene as the model sees it.
        with_tables: Whether drawings have a table, which lies beside its figure.
        file_format: Format of the figures, "png", "pdf" or "svg"; None: as `figure_path` has it.
        dpi: Dots per inch; None: as `write_figure` has it.
        debug: Whether a photo that cannot be used raises its error.

    Returns:
        The exit status.

    Raises:
        ValueError: A figure would overwrite an input or another drawing, or there is no such
            scene.
        OSError: A figure cannot be written.
    """
    targets = name_targets(paths or ["scene"], out, file_format)
    marks = [outputs.mark(path) for path in paths] or [outputs.mark()]
    for target, mark in zip(targets, marks, strict=True):
        with contextlib.suppress(OSError):  # of one file: named when it is its turn
            outputs.claim({target: mark}, beside=[target.with_suffix(".csv")] * with_tables)
    write = partial(_write, dpi=dpi)
    if paths:
        return _draw_photos(paths, targets, marks, draw, write, debug=debug)
    write(draw(built_in_scene(scene_size, scene)), targets[0], marks[0])
    return 0


def _draw_photos(
    paths: Sequence[str],
    targets: Sequence[Path],
    marks: Sequence[str],
    draw: Draw,
    write: Callable[[Drawing, Path, str], None],
    *,
    debug: bool,
) -> int:
    from tqdm import tqdm

    from minivit.preprocess import BadImageError, open_image

    jobs = list(zip(paths, targets, marks, strict=True))
    status = 0
    # disable=None: a bar on a terminal only; a log gets nothing but the lines that matter.
    quiet = True if len(jobs) < 2 else None
    for path, target, mark in tqdm(jobs, unit="picture", disable=quiet, leave=False):
        try:
            photo = open_image(path)
            drawing = draw(Picture(Path(path).name, photo, photo))
        except BadImageError as error:
            if debug:
                raise
            tqdm.write(complaint(path, error), file=sys.stderr)
            status = 2
        else:
            try:
                write(drawing, target, mark)
            except OSError as error:
                if debug or getattr(error.__cause__, "errno", None) not in _OF_ONE_FILE:
                    raise
                tqdm.write(one_line(error), file=sys.stderr)
                status = 2
    return status


def _write(drawing: Drawing, path: Path, mark: str, *, dpi: int | None) -> None:
    """Writes the figure, with the table where there is one, or neither; then prints the rest."""
    from tqdm import tqdm

    from minivit.files import replacing

    table = path.with_suffix(".csv")
    with contextlib.ExitStack() as files:
        if drawing.table:  # it gets its name at the end, once the figure is there
            try:
                temporary = files.enter_context(replacing(table))
            except OSError as error:
                raise unwritable(table, error) from error
            temporary.write_text(drawing.table, encoding="utf-8", newline="")
        write_figure(drawing.figure, path, drawing.remark, mark=mark, dpi=dpi)
    for line in [str(table)] * bool(drawing.table) + list(drawing.lines):
        tqdm.write(visible(line))


def complaint(path: str, error: ValueError) -> str:
    """The error in one line that names the photo."""
    message = one_line(error)
    return message if visible(path) in message else one_line(ValueError(f"{path}: {error}"))


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

    A stem that is too long for a file system is cut.

    Args:
        paths: Files of pictures.
        out: As in `figure_path`.
        file_format: As in `figure_path`.

    Raises:
        ValueError: Several figures would share a file.
    """
    taken: set[str] = set()
    targets = []
    for path in paths:
        stem = name = cut_name(Path(path).stem, _LONGEST_STEM)
        number = 1
        while name.casefold() in taken:  # folders of some systems do not tell A.png from a.png
            number += 1
            ending = f"-{number}"
            name = cut_name(stem, _LONGEST_STEM - len(ending)) + ending
        taken.add(name.casefold())
        target = figure_path(out, name, file_format)
        if target == out and len(paths) > 1:
            raise ValueError(
                f"--out {out}: names one figure, and {len(paths)} pictures get one each; give a "
                f"folder, and the format by --format {out.suffix.lower().removeprefix('.')}"
            )
        targets.append(target)
    return targets


def write_figure(
    figure: Figure, path: Path, remark: str = "", *, mark: str, dpi: int | None = None
) -> None:
    """Saves a figure in the format of its ending, completely or not at all, and says where.

    Args:
        figure: Figure to write.
        path: File to write.
        remark: Words to print behind the name.
        mark: Word that is kept in the file, see `minivit.commands.outputs`.
        dpi: Dots per inch; None: of a PNG file the figure's own, of others 300.

    Raises:
        OSError: It cannot be written; the message advises another --out.
    """
    from tqdm import tqdm

    from minivit.files import save_figure

    if dpi is None and path.suffix.lower() != ".png":
        dpi = VECTOR_DPI
    try:
        save_figure(figure, path, mark=mark, dpi=dpi)
    except OSError as error:
        raise unwritable(path, error) from error
    parts = [str(path), remark] if remark else [str(path)]
    tqdm.write(visible(": ".join(parts)))


def heading(arguments: argparse.Namespace, text: str) -> str:
    """The text above a figure, or "" with --no-heading."""
    return "" if arguments.no_heading else text
