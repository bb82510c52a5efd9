"""The built-in data: pictures of coloured shapes, drawn from (seed, index) and never stored.

A scene holds one to three objects on a textured background. Its label is the shape and colour of
the main object: the only large one, or the only one. Nothing cheap gives the answer away. The
background is drawn without looking at the objects and stays away from all eight object colours
alike; thin lines, arcs, specks and soft blobs in those same colours lie behind the objects; the
light varies in strength, warmth and direction. The caption says where the objects are, and is true.

Lengths are fractions of the shorter side until the moment of drawing, and the grain of the pixels
is the last thing to be drawn from the random stream: one (seed, index) is the same scene at every
image size of the same aspect ratio.

Splits are seeds. Training data is seed 0 (then 1, 2, ... for other training sets); held-out data
uses `VALIDATION_SEED` and `TEST_SEED`, so that no picture is ever seen in two splits.
"""

from dataclasses import dataclass

import numpy as np
import torch
from einops import reduce
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from minivit.data.scenes.captions import CAPTION_WORDS as CAPTION_WORDS
from minivit.data.scenes.captions import write_caption
from minivit.data.scenes.objects import CLASS_NAMES as CLASS_NAMES
from minivit.data.scenes.objects import COLOURS as COLOURS
from minivit.data.scenes.objects import DIFFICULTIES, Difficulty
from minivit.data.scenes.objects import SHAPES as SHAPES
from minivit.data.scenes.objects import SIZES as SIZES
from minivit.data.scenes.painting import Layers, draw_layers, paint
from minivit.data.seeds import scene_rng

VALIDATION_SEED = 1_000_001
TEST_SEED = 1_000_002
NUM_HELD_OUT = 2000  # scenes of each of these two splits that measure a model

BACKGROUND = len(CLASS_NAMES)
"""The label of a patch that shows no object."""


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene.

    Attributes:
        shape: One of `SHAPES`.
        colour: A key of `COLOURS`: the colour of the paint, before light falls on it.
        size: "small" or "large".
        centre: (row, column) in pixels; the pixel (i, j) covers [i, i + 1) x [j, j + 1).
        radius: Nominal radius in pixels. Outlines reach 0.9 to 1.25 times as far, so that shapes
            of one radius cover about the same area.
        angle: Rotation in radians, counter-clockwise on the screen.
        mask: (height, width) bool, True where most of the pixel shows this object.
    """

    shape: str
    colour: str
    size: str
    centre: tuple[float, float]
    radius: float
    angle: float
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Scene:
    """A picture and everything that is known about it.

    Attributes:
        image: The picture, RGB.
        label: Index of the main object's class in `CLASS_NAMES`.
        objects: Objects of the scene, the main one first.
        caption: Lower-case words separated by single spaces.
        word_objects: Index, for each word of the caption, of the object whose noun phrase (article,
            size, colour, shape) the word belongs to; None for words of relation.
    """

    image: Image.Image
    label: int
    objects: tuple[SceneObject, ...]
    caption: str
    word_objects: tuple[int | None, ...]


def _check(image_size: int | tuple[int, int], difficulty: str) -> tuple[int, int, Difficulty]:
    """(height, width, difficulty); refuses what cannot be drawn."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(height, width) < 16:
        raise ValueError(
            f"image_size must be at least 16 pixels on both sides, got {image_size}: "
            "smaller objects have no shape"
        )
    if difficulty not in DIFFICULTIES:
        raise ValueError(
            f"unknown difficulty {difficulty!r}, expected one of {', '.join(DIFFICULTIES)}"
        )
    return height, width, DIFFICULTIES[difficulty]


def make_scene(
    seed: int, index: int, *, image_size: int | tuple[int, int] = 64, difficulty: str = "full"
) -> Scene:
    """Draw one scene: the same arguments give the same scene, whatever was drawn before.

    Args:
        seed: Name of the endless series of scenes; see the module's docstring for the splits.
        index: Number of the scene in the series.
        image_size: Side in pixels, or (height, width).
        difficulty: "easy" (one or two objects, little noise) or "full".

    Raises:
        ValueError: Negative seed or index, a side below 16 pixels, an unknown difficulty.
    """
    height, width, chosen = _check(image_size, difficulty)
    painting = paint(scene_rng(seed, index, 0), height, width, chosen)
    short = min(height, width)
    masks = painting.masks()
    objects = tuple(
        SceneObject(
            shape=body.shape,
            colour=body.colour,
            size=body.size,
            centre=(body.row * short, body.column * short),
            radius=body.radius * short,
            angle=body.angle,
            mask=masks[position],
        )
        for position, body in enumerate(painting.bodies)
    )
    words = write_caption(scene_rng(seed, index, 1), painting.bodies)
    return Scene(
        # (3, height, width) -> (height, width, 3)
        image=Image.fromarray(np.ascontiguousarray(painting.pixels.transpose(1, 2, 0))),
        label=CLASS_NAMES.index(f"{objects[0].colour} {objects[0].shape}"),
        objects=objects,
        caption=" ".join(word for word, _ in words),
        word_objects=tuple(index for _, index in words),
    )


def scene_layers(
    seed: int, index: int, *, image_size: int | tuple[int, int] = 64, difficulty: str = "full"
) -> Layers:
    """The layers that `make_scene` composes for the same arguments, whose errors it has."""
    return draw_layers(scene_rng(seed, index, 0), *_check(image_size, difficulty))


def draw_captioned(
    seed: int,
    index: int,
    *,
    image_size: int | tuple[int, int] = 64,
    difficulty: str = "full",
    num_captions: int = 1,
) -> tuple[NDArray[np.uint8], list[str]]:
    """The pixels of `make_scene`, (3, height, width), and captions, of which the first is its own.

    Args:
        seed: As for `make_scene`, as are its errors.
        index: As for `make_scene`.
        image_size: As for `make_scene`.
        difficulty: As for `make_scene`.
        num_captions: Number of captions; each speaks of the objects in an order of its own.
    """
    painting = paint(scene_rng(seed, index, 0), *_check(image_size, difficulty))
    rng = scene_rng(seed, index, 1)
    sentences = [write_caption(rng, painting.bodies) for _ in range(num_captions)]
    return painting.pixels, [" ".join(word for word, _ in words) for words in sentences]


class ScenesDataset(Dataset[tuple[torch.Tensor, ...]]):
    """Scenes 0 to length - 1 of a seed, as tensors.

    Item i is the picture, uint8 (3, height, width), and its label, int64 (); with a `patch_size`
    also what each patch shows, int64 (rows, cols): the class of the object that covers most of it,
    `BACKGROUND` where none covers half.

    Nothing is stored: drawing costs less than decoding a JPEG. Scaling to floats and normalising
    is the work of `minivit.preprocess`.

    Args:
        seed: Name of the series of scenes; see the module's docstring for the splits.
        length: Number of scenes.
        image_size: Side in pixels, or (height, width).
        difficulty: "easy" or "full", see `make_scene`.
        patch_size: Size (height, width) of a patch in pixels; None: patches have no labels.

    Raises:
        ValueError: As `make_scene`; a length below 1; patches that do not divide the picture.
    """

    def __init__(
        self,
        seed: int = 0,
        length: int = 10_000,
        *,
        image_size: int | tuple[int, int] = 64,
        difficulty: str = "full",
        patch_size: tuple[int, int] | None = None,
    ) -> None:
        if length < 1:
            raise ValueError(f"length must be 1 or more, got {length}")
        scene_rng(seed, 0, 0)  # refuses a negative seed here instead of in a worker
        self.height, self.width, self._difficulty = _check(image_size, difficulty)
        if patch_size and (self.height % patch_size[0] or self.width % patch_size[1]):
            raise ValueError(
                f"patches of {patch_size} do not divide a picture of {(self.height, self.width)}"
            )
        self.seed, self.length, self.patch_size = seed, length, patch_size

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        if not 0 <= index < self.length:
            raise IndexError(f"scene {index} of a data set of {self.length}")
        rng = scene_rng(self.seed, index, 0)
        painting = paint(rng, self.height, self.width, self._difficulty)
        classes = [CLASS_NAMES.index(f"{body.colour} {body.shape}") for body in painting.bodies]
        image, label = torch.from_numpy(painting.pixels), torch.tensor(classes[0])
        if self.patch_size is None:
            return image, label
        shares = reduce(
            painting.masks().astype(np.float32),
            "objects (rows h) (cols w) -> objects rows cols",
            "mean",
            h=self.patch_size[0],
            w=self.patch_size[1],
        )
        largest = np.array(classes)[shares.argmax(0)]
        patch_labels = np.where(shares.max(0) >= 0.5, largest, BACKGROUND)
        return image, label, torch.from_numpy(patch_labels)
