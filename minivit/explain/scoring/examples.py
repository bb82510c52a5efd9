"""Pictures to score maps on: as the model takes them, and where the object is in each.

An example is opened when it is asked for, and opened again when it is asked for again, so that a
set of any size can be scored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, overload

import torch
from torch import Tensor

from minivit.data.errors import BadDataError
from minivit.data.photos.folders import pictures_in
from minivit.data.photos.masks import (
    Cells,
    Mask,
    Rule,
    cell_shares,
    masked_photos,
    read_mask,
)
from minivit.data.scenes.dataset import TEST_SEED, make_scene
from minivit.preprocess import open_image
from minivit.vit import VisionTransformer


class Example(NamedTuple):
    """A picture to explain.

    Attributes:
        image: (C, height, width), as `model.preprocess` makes it.
        cells: Share of object in each cell of the model's grid; None: the object is not known.
    """

    image: Tensor
    cells: Cells | None = None


class Examples(Sequence[Example]):
    """Examples that are made by number; a subclass says how.

    Attributes:
        model: Model whose transform and patches they are made for.
    """

    def __init__(self, model: VisionTransformer) -> None:
        self.model = model

    def make(self, index: int) -> Example:
        """Example of a number from 0 to the last."""
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        numbers = range(len(self))[index]  # an IndexError as of a list
        return self.make(numbers) if isinstance(numbers, int) else [self.make(n) for n in numbers]

    def __iter__(self) -> Iterator[Example]:
        return (self.make(number) for number in range(len(self)))

    def _cells(self, mask: Mask, image: Tensor) -> Cells:
        """What the mask of a whole picture says of the cells of what the model sees of it."""
        height, width = mask.object.shape
        grid = self.model.patch_embed.grid_for(*image.shape[-2:])
        return cell_shares(mask, grid, box=self.model.preprocess.crop_box(width, height))


class SceneExamples(Examples):
    """Built-in scenes that no training has seen; the object is the main one, which names the class.

    Args:
        model: Model that sees them.
        count: Number of scenes, from the first.
    """

    def __init__(self, model: VisionTransformer, count: int) -> None:
        super().__init__(model)
        self.num_scenes = count

    def __len__(self) -> int:
        return self.num_scenes

    def make(self, index: int) -> Example:
        """Scene of a number."""
        preprocess = self.model.preprocess
        scene = make_scene(TEST_SEED, index, image_size=preprocess.image_size)
        image = preprocess(scene.image)
        planted = torch.from_numpy(scene.objects[0].mask)
        return Example(image, self._cells(Mask(planted, torch.ones_like(planted)), image))


class PhotoExamples(Examples):
    """Photos of a folder, with or without masks.

    Args:
        model: Model that sees them.
        photos: Folder of photos.
        masks: Folder of PNG files of the same stems, see `minivit/data/photos/masks.py`; None: the
            objects are not known.
        limit: Number of photos, evenly spaced in natural order; 0: all.

    Attributes:
        paths: Photo and mask of each example, in order.

    Raises:
        BadDataError: As `masked_photos`; or the folder has no photos.
    """

    def __init__(
        self, model: VisionTransformer, photos: Path, masks: Path | None = None, *, limit: int = 0
    ) -> None:
        super().__init__(model)
        if masks is None:
            paths: list[tuple[Path, Path | None]] = [(path, None) for path in pictures_in(photos)]
            if not paths:
                problem, advice = "no photos in this folder", "give the folder with photos"
                raise BadDataError.about(photos, problem, advice)
        else:
            paths = list(masked_photos(photos, masks))
        self.paths = [paths[index] for index in even_numbers(len(paths), limit or len(paths))]

    def __len__(self) -> int:
        return len(self.paths)

    def make(self, index: int) -> Example:
        """Photo of a number.

        Raises:
            BadImageError: The photo cannot be used.
            BadDataError: The mask cannot be read, is of another size than the photo, shows no
                object, or says nothing of what the model sees.
        """
        return self._open(index)[0]

    def check(self, done: Callable[[int], object]) -> Counter[Rule]:
        """Opens every photo and mask once, so that a bad one is named before anything is computed.

        Args:
            done: Called with 1 after each.

        Returns:
            Number of masks that were read by each rule.

        Raises:
            ValueError: As `make`.
        """
        rules: Counter[Rule] = Counter()
        for index in range(len(self)):
            if rule := self._open(index)[1]:
                rules[rule] += 1
            done(1)
        return rules

    def _open(self, index: int) -> tuple[Example, Rule | None]:
        path, mask_path = self.paths[index]
        photo = open_image(path)
        image = self.model.preprocess(photo)
        if mask_path is None:
            return Example(image), None
        mask = read_mask(mask_path, size=photo.size)
        if not mask.object.any():
            advice = "expected values above 0 where it is"
            raise BadDataError.about(mask_path, "the mask shows no object", advice)
        cells = self._cells(mask, image)
        if not cells.known.any():
            problem = "all pixels that the model sees are marked as to be ignored"
            raise BadDataError.about(mask_path, problem, "leave the photo out")
        return Example(image, cells), mask.rule


def even_numbers(total: int, count: int) -> list[int]:
    """`count` of the numbers 0 to total - 1, evenly spaced from 0; all where there are no more."""
    if count >= total:
        return list(range(total))
    return [index * total // count for index in range(count)]
