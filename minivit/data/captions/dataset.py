"""Pictures and their captions as tensors: photos from files, or the built-in scenes.

A caption becomes start, tokens, end. A decoder reads all but the last of them and is asked for all
but the first, so that `max_length` here is one more than the positions that the decoder has::

    start  two  dogs  run  .  end          inputs = ids[:, :-1]   targets = ids[:, 1:]

Whatever is drawn at random comes from (seed, epoch, index), see `minivit.data.seeds`: the number of
workers and the order of the samples change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from minivit.data.captions.splits import BadCaptionsError as BadCaptionsError
from minivit.data.captions.splits import CaptionedPicture as CaptionedPicture
from minivit.data.captions.splits import CaptionSet as CaptionSet
from minivit.data.captions.splits import NoSplitError as NoSplitError
from minivit.data.captions.splits import hold_out as hold_out
from minivit.data.captions.splits import read_captions as read_captions
from minivit.data.scenes.captions import CAPTION_WORDS, longest_caption
from minivit.data.scenes.dataset import draw_captioned
from minivit.data.seeds import caption_rng
from minivit.preprocess import BadImageError, open_image
from minivit.tokenizer import Tokenizer

Transform = Callable[[Image.Image, np.random.Generator], Tensor]
"""Takes an upright RGB picture and a generator of random numbers, gives (3, height, width)."""


def encode_caption(tokenizer: Tokenizer, text: str, max_length: int) -> tuple[list[int], bool]:
    """Start, the tokens of a caption, end: at most `max_length` ids, and whether it was cut.

    A caption that is too long loses its last tokens and keeps the end, as in CATR, whose
    `encode_plus(max_length=129, truncation=True)` gives [CLS], 127 tokens, [SEP]: the decoder
    learns to stop where its positions end. Nothing is padded.

    Raises:
        ValueError: `max_length` below 3, which leaves no room for a word.
    """
    if max_length < 3:
        raise ValueError(f"max_length is {max_length}, expected 3 or more: start, a word, end")
    ids = tokenizer.encode(text)
    most = max_length - 2
    return [tokenizer.start_id, *ids[:most], tokenizer.end_id], len(ids) > most


class CaptionDataset(Dataset[tuple[Tensor, Tensor]]):
    """Photos with captions.

    Item i is (picture, ids): the picture uint8 (3, height, width), or what `transform` makes of
    it, and the ids of `encode_caption`, int64 (T,). Items are all pairs of a picture and one of
    its captions, in order.

    Attributes:
        description: Description of the captions, and how many of them had to be cut.
        truncated: Number of captions that had to be cut.

    Args:
        captions: Pictures and captions, as `read_captions` gives them.
        tokenizer: Tokenizer that makes ids of words.
        max_length: Highest number of ids a caption, start and end counted.
        transform: Called with the RGB picture and a generator seeded from (seed, epoch, index).
        seed: Seed for the transform, 0 or more.
        on_captions: Called with the number of captions that have just been encoded, for a progress
            bar: all of them are encoded here, some 30,000 a second.

    Raises:
        ValueError: As `encode_caption`; a negative seed.
    """

    def __init__(
        self,
        captions: CaptionSet,
        tokenizer: Tokenizer,
        *,
        max_length: int = 129,
        transform: Transform | None = None,
        seed: int = 0,
        on_captions: Callable[[int], object] | None = None,
    ) -> None:
        if seed < 0:
            raise ValueError(f"seed is {seed}, expected 0 or more")
        self.transform, self.seed = transform, seed
        self.paths = [str(picture.path) for picture in captions.pictures]
        # Flat arrays: a forked worker that only looks at a list of lists copies all of its pages.
        ids: list[np.ndarray[tuple[int], np.dtype[np.int32]]] = []
        self.truncated = 0
        for picture in captions.pictures:
            for text in picture.captions:
                encoded, cut = encode_caption(tokenizer, text, max_length)
                ids.append(np.array(encoded, dtype=np.int32))
                self.truncated += cut
            if on_captions is not None:
                on_captions(len(picture.captions))
        counts = [len(picture.captions) for picture in captions.pictures]
        self._ids = np.concatenate(ids)
        self._ends = np.cumsum([0, *map(len, ids)])  # caption i is _ids[_ends[i] : _ends[i + 1]]
        self._picture = np.repeat(np.arange(len(counts)), counts)  # caption i -> its picture
        cut_captions = f"{self.truncated:,} caption{'s' * (self.truncated != 1)}"
        self.description = f"{captions.description}; {cut_captions} cut to {max_length} tokens"
        # In shared memory: workers that live on (persistent_workers) see the next epoch too.
        epoch = torch.zeros((), dtype=torch.int64)
        self._epoch: Tensor = epoch.share_memory_()  # type: ignore[no-untyped-call]

    def set_epoch(self, epoch: int) -> None:
        """Names the pass over the data, 0 at first: each augments anew.

        Call it before the pass begins; running workers follow.
        """
        if epoch < 0:
            raise ValueError(f"epoch is {epoch}, expected 0 or more")
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self._picture)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Item `index`.

        Raises:
            BadImageError: The picture cannot be opened or transformed; names the file.
            IndexError: No such item.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of a data set of {len(self)}")
        path = self.paths[int(self._picture[index])]
        picture = open_image(path)
        if self.transform is None:
            pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)  # (H, W, 3) -> (3, H, W)
            pixels = pixels.contiguous()
        else:
            rng = caption_rng(self.seed, int(self._epoch), index)
            try:
                pixels = self.transform(picture, rng)
            except BadImageError as error:
                raise BadImageError(f"{path}: {error}") from error
        ids = self._ids[self._ends[index] : self._ends[index + 1]]
        return pixels, torch.from_numpy(ids.astype(np.int64))


class CaptionBatch(NamedTuple):
    """Pictures and captions of several sizes in one tensor each.

    Attributes:
        images: Pictures (B, 3, height, width), zero at the right and at the bottom of smaller ones.
        image_mask: Mask (B, height, width), True = picture; None: all of it is picture.
        tokens: Ids (B, T) int64, the padding token after the end.
    """

    images: Tensor
    image_mask: Tensor | None
    tokens: Tensor


def collate_captions(
    items: Sequence[tuple[Tensor, Tensor]], pad_id: int, *, size: tuple[int, int] | None = None
) -> CaptionBatch:
    """Pads the items of a `CaptionDataset` to a batch.

    Args:
        items: Pairs (picture (3, height, width), ids (T,)); all pictures of one type of numbers.
        pad_id: Id that fills the shorter captions.
        size: Size (height, width) of the batch; None: the largest height and the largest width.

    Raises:
        ValueError: No items; a picture of another shape or type, or larger than `size`.
    """
    if not items:
        raise ValueError("there are no items, expected one or more")
    first = items[0][0]
    for picture, _ in items:
        if picture.ndim != 3 or len(picture) != len(first) or picture.dtype != first.dtype:
            expected = f"({len(first)}, height, width) {first.dtype} as the first one"
            raise ValueError(
                f"a picture is {tuple(picture.shape)} {picture.dtype}, expected {expected}"
            )
    heights, widths = zip(*(picture.shape[1:] for picture, _ in items), strict=True)
    height, width = size or (max(heights), max(widths))
    if max(heights) > height or max(widths) > width:
        largest = (max(heights), max(widths))
        raise ValueError(
            f"a picture of (height, width) {largest} does not fit into {(height, width)}"
        )
    images = first.new_zeros(len(items), len(first), height, width)
    mask = torch.zeros(len(items), height, width, dtype=torch.bool, device=first.device)
    for index, (picture, _) in enumerate(items):
        images[index, :, : heights[index], : widths[index]] = picture
        mask[index, : heights[index], : widths[index]] = True
    tokens = torch.nn.utils.rnn.pad_sequence(
        [ids for _, ids in items], batch_first=True, padding_value=pad_id
    )
    return CaptionBatch(images, mask, tokens)


class SceneCaptions(Dataset[tuple[Tensor, ...]]):
    """Scenes 0 to length - 1 of a seed with their captions; see `minivit.data.scenes.dataset`.

    Item i is (picture, ids): uint8 (3, height, width), and for each caption start, tokens, end,
    padding, int64 (num_captions, max_length), the same length for all, so that
    `minivit.data.loading.load_all` can stack them.

    Attributes:
        max_length: Number of ids of the longest caption possible, start and end counted.

    Args:
        seed: Name of the series of scenes.
        length: Number of scenes.
        tokenizer: Tokenizer that makes ids of words, `WordLevel(CAPTION_WORDS)` for one.
        image_size: Side in pixels, or (height, width).
        difficulty: "easy" or "full", see `make_scene`.
        num_captions: Number of captions of each scene.

    Raises:
        ValueError: As `make_scene`; a length below 1; a word that the tokenizer does not know.
    """

    def __init__(
        self,
        seed: int,
        length: int,
        tokenizer: Tokenizer,
        *,
        image_size: int | tuple[int, int] = 64,
        difficulty: str = "full",
        num_captions: int = 1,
    ) -> None:
        if length < 1:
            raise ValueError(f"length must be 1 or more, got {length}")
        words = {word: tokenizer.encode(word) for word in CAPTION_WORDS}
        if unknown := [word for word, ids in words.items() if tokenizer.unknown_id in ids]:
            raise ValueError(
                f"the tokenizer does not know {', '.join(unknown[:5])}: {len(unknown)} of the "
                f"{len(words)} words of the captions; make it with WordLevel(CAPTION_WORDS)"
            )
        self.max_length = longest_caption(lambda word: len(words[word])) + 2
        self.seed, self.length, self.tokenizer = seed, length, tokenizer
        self.options: dict[str, Any] = {
            "image_size": image_size,
            "difficulty": difficulty,
            "num_captions": num_captions,
        }
        self[0]  # refuses a bad seed, size or difficulty here instead of in a worker

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        if not 0 <= index < self.length:
            raise IndexError(f"scene {index} of a data set of {self.length}")
        pixels, captions = draw_captioned(self.seed, index, **self.options)
        ids = torch.full((len(captions), self.max_length), self.tokenizer.pad_id)
        for row, caption in zip(ids, captions, strict=True):
            encoded, _ = encode_caption(self.tokenizer, caption, self.max_length)
            row[: len(encoded)] = torch.tensor(encoded)
        return torch.from_numpy(pixels), ids
