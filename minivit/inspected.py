"""What an inspected call gives back: attention weights that know their place in the picture.

A map of 144 patches may be 16 rows of 9 or 9 rows of 16, and the numbers do not say which. The call
that made them does: it saw the picture. So its list of weights carries the grid of that picture,
the tokens before the patches, and which blocks and rows it holds; `minivit/explain/` asks for no
more. `AttentionRows` (`attention.py`) is the question, this is the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex, overload

import torch
from torch import Tensor
from torch.utils._pytree import register_pytree_node


class Attentions(list[Tensor]):
    """A list of weights, one (B, H, N or chosen rows, N) a block, and where they belong.

    It is a list, not a tuple, because models returned lists before: code that changes an entry or
    adds two lists goes on working. Slices know what the whole knows. Whatever makes a new list
    (concatenation, a comprehension) gives a plain one; `with_tensors` keeps what is known.

    Args:
        tensors: Weights, block by block. Given alone, as by code that copies any kind of list, they
            have no grid: (0, 0).

    Attributes:
        image_size: (height, width) in pixels of the pictures that the model saw.
        grid_size: (rows, cols) of their patches.
        num_prefix_tokens: Number of tokens before the patches.
        class_token: Whether token 0 is a class token.
        blocks: Numbers of the blocks, one an entry, counted from 0.
        queries: Numbers of the tokens whose rows are given, counted from 0; None: all tokens.
    """

    def __init__(
        self,
        tensors: Iterable[Tensor] = (),
        *,
        image_size: tuple[int, int] = (0, 0),
        grid_size: tuple[int, int] = (0, 0),
        num_prefix_tokens: int = 0,
        class_token: bool = False,
        blocks: Sequence[int] = (),
        queries: Sequence[int] | None = None,
    ) -> None:
        super().__init__(tensors)
        self.image_size = image_size
        self.grid_size = grid_size
        self.num_prefix_tokens = num_prefix_tokens
        self.class_token = class_token
        self.blocks = tuple(blocks)
        self.queries = None if queries is None else tuple(queries)

    def with_tensors(
        self, tensors: Iterable[Tensor], *, blocks: Sequence[int] | None = None
    ) -> Attentions:
        """The same knowledge about other tensors: moved to a device, detached, times gradients.

        Args:
            tensors: Weights of the same tokens, in place of those that are here.
            blocks: Numbers of their blocks; None: the same.
        """
        return Attentions(
            tensors,
            image_size=self.image_size,
            grid_size=self.grid_size,
            num_prefix_tokens=self.num_prefix_tokens,
            class_token=self.class_token,
            blocks=self.blocks if blocks is None else blocks,
            queries=self.queries,
        )

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice, /) -> Attentions: ...
    def __getitem__(self, index: SupportsIndex | slice, /) -> Tensor | Attentions:
        if not isinstance(index, slice):
            return super().__getitem__(index)
        return self.with_tensors(super().__getitem__(index), blocks=self.blocks[index])

    def __reduce__(self) -> tuple[Any, ...]:
        """For copies and files, by steps that `torch.load(weights_only=True)` takes too."""
        return Attentions, (list(self),), self.__dict__


# torch knows lists, and has to be told of this one: what takes outputs apart (torch.export,
# torch.func) puts a plain list together again, and torch.load(weights_only=True) reads it.
register_pytree_node(
    Attentions,
    lambda attentions: (list(attentions), None),
    lambda tensors, _: list(tensors),
    serialized_type_name="minivit.inspected.Attentions",
)
torch.serialization.add_safe_globals([Attentions])
