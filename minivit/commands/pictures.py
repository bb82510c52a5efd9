"""What the commands that draw photos share: a figure for each, whatever the others are like.

A photo that cannot be used is named in one line on standard error and the rest still come out. A
figure is written completely or not at all, and named on standard output. Nothing here imports torch
before it is needed.
"""

from __future__ import annotations

import contextlib
import errno
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from minivit.commands.outputs import Outputs, unwritable
from minivit.commands.terminal import one_line
from minivit.files import cut_name
from minivit.plain_text import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image


_LONGEST_STEM = 255 - len(".png")  # bytes, by most file systems
_OF_ONE_FILE = (errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EILSEQ)  # not of all of them


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
    folder: Path,
    draw: Draw,
    *,
    outputs: Outputs,
    scene: int,
    scene_size: tuple[int, int],
    with_tables: bool = False,
    debug: bool = False,
) -> int:
    """Writes DIR/<image stem>.png for each photo, or DIR/scene.png of a built-in scene.

    Args:
        paths: Files of photos; none: a built-in scene.
        folder: Folder of the figures; made when it is not there.
        draw: Makes a figure.
        outputs: Rule that says which files may be written.
        scene: Number of the built-in scene.
        scene_size: Height and width of a scene as the model sees it.
        with_tables: Whether drawings have a table, which lies beside its figure.
        debug: Whether a photo that cannot be used raises its error.

    Returns:
        The exit status.

    Raises:
        ValueError: A figure would overwrite an input or another drawing, or there is no such
            scene.
        OSError: A figure cannot be written.
    """
    targets = name_targets(paths, folder) if paths else [folder / "scene.png"]
    marks = [outputs.mark(path) for path in paths] or [outputs.mark()]
    for target, mark in zip(targets, marks, strict=True):
        outputs.claim({target: mark}, beside=[target.with_suffix(".csv")] * with_tables)
    if paths:
        return _draw_photos(paths, targets, marks, draw, debug=debug)
    _write(draw(built_in_scene(scene_size, scene)), targets[0], marks[0])
    return 0


def _draw_photos(
    paths: Sequence[str], targets: Sequence[Path], marks: Sequence[str], draw: Draw, *, debug: bool
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
                _write(drawing, target, mark)
            except OSError as error:
                if debug or getattr(error.__cause__, "errno", None) not in _OF_ONE_FILE:
                    raise
                tqdm.write(one_line(error), file=sys.stderr)
                status = 2
    return status


def _write(drawing: Drawing, path: Path, mark: str) -> None:
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
        write_figure(drawing.figure, path, drawing.remark, mark=mark)
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


def name_targets(paths: Sequence[str], folder: Path) -> list[Path]:
    """DIR/<stem>.png for each picture; of equal stems the later ones get -2, -3, …

    A stem that is too long for a file system is cut.
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
        targets.append(folder / f"{name}.png")
    return targets


def write_figure(figure: Figure, path: Path, remark: str = "", *, mark: str) -> None:
    """Saves a figure as PNG with its mark, completely or not at all, and says where.

    Raises:
        OSError: It cannot be written; the message advises another --out.
    """
    from tqdm import tqdm

    from minivit.files import save_figure

    try:
        save_figure(figure, path, mark=mark)
    except OSError as error:
        raise unwritable(path, error) from error
    parts = [str(path), remark] if remark else [str(path)]
    tqdm.write(visible(": ".join(parts)))
