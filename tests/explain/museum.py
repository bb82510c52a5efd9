"""A museum of known faults: mistakes of code of attention maps, published code too, one by one.

Each exhibit is a line of minivit's own code and what stands there in the faulty version.
`installed` puts the fault into the running library and takes it out again: the module's source is
changed and compiled, and the function that is in use, wherever it was imported to, is given the
compiled body. Nothing is written to disk.

`test_museum.py` asks that a named test of the suite fails while a fault is in.
`tutorials/pictures/faults.py` draws how far the map moves.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minivit import VisionTransformer
from minivit.explain import METHODS, patch_map, rollout
from minivit.explain.scoring.rank_correlation import rank_correlation
from tests.explain.vits import make_model

Map = Callable[[VisionTransformer, Tensor], Tensor]


@dataclass(frozen=True)
class Exhibit:
    """A fault, where it goes, and which test has to notice it.

    Attributes:
        name: Name of the exhibit.
        mistake: Sentence on what goes wrong, and in whose code.
        place: Function that gets the fault, "module:function" or "module:class.function".
        before: Text that stands in the function once.
        after: Text in its place.
        test: Test that must fail, "module:function".
        arguments: Arguments of the test.
        view: Name in `VIEWS` of the map that moves; None: no map moves.
    """

    name: str
    mistake: str
    place: str
    before: str
    after: str
    test: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    view: str | None = None


class LostPlaceError(Exception):
    """The code has moved and an exhibit no longer fits it."""


def attention(model: VisionTransformer, images: Tensor) -> Tensor:
    return METHODS["attention"](model, images)


def rollout_of(fusion: Any) -> Map:
    """Rollout by whole matrices, the row of the class token."""

    def maps(model: VisionTransformer, images: Tensor) -> Tensor:
        with torch.no_grad():
            _, attentions = model(images, return_attention=True)
            return patch_map(rollout(attentions, fusion=fusion)[:, 0], attentions)

    return maps


def rolled_row(model: VisionTransformer, images: Tensor) -> Tensor:
    return METHODS["rollout"](model, images)


def relevance(model: VisionTransformer, images: Tensor) -> Tensor:
    return METHODS["relevance"](model, images)


VIEWS: dict[str, Map] = {
    "attention": attention,
    "rollout": rollout_of("mean"),
    "rollout, strongest head": rollout_of("max"),
    "rollout, one row": rolled_row,
    "relevance": relevance,
}
"""What is drawn of a fault: the maps (B, rows, cols) of a model and pictures."""

_PAPER = {
    "test": "tests.explain.methods.test_relevance:test_it_is_the_papers_matrix",
    "arguments": {"kind": "registers", "keep": "maps"},
    "view": "relevance",
}
_LOOP = {
    "test": "tests.explain.test_rollout:test_rollout_is_the_loop_on_paper",
    "arguments": {"depth": 2},
    "view": "rollout",
}
_FOLD = "minivit.explain.methods.relevance:fold_back"
_FOLDED = "return row + carried / attention.shape[1]"

EXHIBITS = [
    # ---- rollout ---------------------------------------------------------------------------------
    Exhibit(
        name="blocks walked backwards",
        mistake="Copies of rollout that collect maps from the last block on multiply them as if "
        "the first came first; a product with the new block on the right is the same map.",
        place="minivit.explain.rollout:rollout",
        before="for attention in attentions:",
        after="for attention in reversed(attentions):",
        **_LOOP,
    ),
    Exhibit(
        name="residual forgotten",
        mistake="Attention alone is multiplied, as if a block had no way around its attention.",
        place="minivit.explain.rollout:mix",
        before="mixed.diagonal(dim1=-2, dim2=-1).add_(residual)",
        after="pass",
        **_LOOP,
    ),
    Exhibit(
        name="normalised without keepdim",
        mistake="Rows are divided by `sum(dim=-1)`, which torch lays along the columns: for one "
        "picture without an error.",
        place="minivit.explain.rollout:mix",
        before="mixed.sum(dim=-1, keepdim=True)",
        after="mixed.sum(dim=-1)",
        test="tests.explain.test_rollout:test_entries_equal_to_the_smallest_that_stays_stay_too",
        view="rollout, strongest head",
    ),
    Exhibit(
        name="LayerNorm left out",
        mistake="Queries and keys are computed again from the block's input, and its first norm is "
        "forgotten.",
        place="minivit.explain.methods.rolled_row:rolled_row",
        before="block.before(block.norm1, inputs.pop())",
        after="inputs.pop()",
        test="tests.explain.methods.test_rolled_row:test_it_is_the_class_tokens_row_of_the_product",
        arguments={"kind": "class token"},
        view="rollout, one row",
    ),
    # ---- one block's attention -------------------------------------------------------------------
    Exhibit(
        name="softmax left out",
        mistake="Scores are drawn for weights: what a hook on the product of queries and keys "
        "sees.",
        place="minivit.cpu:write_weights",
        before="return torch.softmax(memory, dim=-1, out=memory)\n",
        after="return memory\n",
        test="tests.test_attention:test_weights_are_the_softmax_of_the_scaled_scores",
        view="attention",
    ),
    Exhibit(
        name="scale left out",
        mistake="Scores computed again by hand are not divided by √d.",
        place="minivit.cpu:write_weights",
        before="query / math.sqrt(query.shape[-1])",
        after="query",
        test="tests.test_attention:test_weights_are_the_softmax_of_the_scaled_scores",
        view="attention",
    ),
    Exhibit(
        name="class token's own column kept",
        mistake="The map begins with what the class token gives to itself, and the last patch is "
        "lost: all others lie one cell late.",
        place="minivit.explain.maps:patch_map",
        before="weights[..., place.num_prefix_tokens :]",
        after="weights[..., : -place.num_prefix_tokens]",
        test="tests.explain.test_maps:test_a_planted_peak_is_in_its_cell",
        arguments={"options": {}, "row": 2, "col": 4},
        view="attention",
    ),
    Exhibit(
        name="rows and columns swapped",
        mistake="The row of patches is cut into columns, as code does that takes (width, height) "
        "for (height, width).",
        place="minivit.explain.maps:patch_map",
        before='"... (rows cols) -> ... rows cols"',
        after='"... (cols rows) -> ... rows cols"',
        test="tests.explain.test_maps:test_a_planted_peak_is_in_its_cell",
        arguments={"options": {}, "row": 0, "col": 5},
        view="attention",
    ),
    # ---- gradient-weighted relevance -------------------------------------------------------------
    Exhibit(
        name="gradient of the scores",
        mistake="The gradient is caught at the input of softmax, the attention's logits, and "
        "multiplied with the weights.",
        place=_FOLD,
        before="(weights * by_weights).clamp_(min=0)",
        after="(weights * weights * (by_weights - (weights * by_weights).sum(-1, True)))"
        ".clamp_(min=0)",
        **_PAPER,
    ),
    Exhibit(
        name="product in the wrong order",
        mistake="The block's matrix stands before the row and not after it, so that what a token "
        "takes is counted as what it gives.",
        place=_FOLD,
        before="(read[:, None] @ raising)[:, 0]",
        after="torch.nn.functional.pad((raising @ row[:, :, None])[:, :, 0],"
        " (0, row.shape[1] - read.shape[1]))",
        **_PAPER,
    ),
    Exhibit(
        name="identity forgotten",
        mistake="Products of the blocks' maps are taken without the I that stands for the way "
        "around.",
        place=_FOLD,
        before=_FOLDED,
        after="return carried / attention.shape[1]",
        **_PAPER,
    ),
    Exhibit(
        name="rows normalised",
        mistake="Each block's rows are brought to the sum 1 before I is added (torchxai-explain "
        "0.3.0).",
        place=_FOLD,
        before=_FOLDED,
        after="mean = (attention * gradient).clamp(min=0).mean(dim=1)\n"
        "        mean = mean / mean.sum(dim=-1, keepdim=True).clamp(min=1e-30)\n"
        "        return row + (read[:, None] @ mean)[:, 0]",
        **_PAPER,
    ),
    Exhibit(
        name="negative part kept",
        mistake="What lowers the class is added to what raises it: no positive part is taken.",
        place=_FOLD,
        before=".clamp_(min=0)",
        after="",
        **_PAPER,
    ),
    Exhibit(
        name="heads averaged first",
        mistake="The mean of weights is multiplied with the mean of gradients.",
        place=_FOLD,
        before=_FOLDED,
        after="mean = (attention.mean(dim=1) * gradient.mean(dim=1)).clamp(min=0)\n"
        "        return row + (read[:, None] @ mean)[:, 0]",
        **_PAPER,
    ),
    Exhibit(
        name="class hard-coded",
        mistake="The map is of class 0, whatever the model predicts: a number left in an example.",
        place="minivit.explain.conditions:class_numbers",
        before="return logits.argmax(dim=1)",
        after="return 0 * logits.argmax(dim=1)",
        test="tests.explain.methods.test_relevance:test_the_class_is_by_default_the_predicted_one",
        arguments={"keep": "maps"},
        view="relevance",
    ),
    Exhibit(
        name="a square grid assumed",
        mistake="Rows are the root of the number of patches, rounded down: 14 × 14, and 8 × 18 as "
        "12 × 12 (torchxai-explain 0.3.0).",
        place="minivit.explain.methods.readout:to_maps",
        before="rows, _ = model.patch_embed.grid_for(*images.shape[-2:])",
        after="rows = int((row.shape[1] - model.num_prefix_tokens) ** 0.5)",
        test="tests.explain.test_faults_of_packages:test_a_map_moves_with_the_picture",
        arguments={"name": "relevance", "grid": (8, 18)},
        view="relevance",
    ),
    Exhibit(
        name="registers taken for picture",
        mistake="One token is cut off whatever stands before the patches (torchxai-explain 0.3.0).",
        place="minivit.explain.methods.readout:to_maps",
        before="row[:, model.num_prefix_tokens :]",
        after="row[:, 1 : 1 - model.num_prefix_tokens or None]",
        view="relevance",
        test="tests.explain.methods.test_relevance:test_it_is_the_papers_matrix",
        arguments={"kind": "registers", "keep": "inputs"},
    ),
    # ---- what no map shows -----------------------------------------------------------------------
    Exhibit(
        name="hooks left behind",
        mistake="Hooks stay on the model after the first call (fast-vit-rollout 0.1.1).",
        place="minivit.explain.inside.parts:hooks_on",
        before="handle.remove()",
        after="pass",
        test="tests.explain.inside.test_intervene:test_the_model_is_what_it_was",
        arguments={"training": False, "error": False, "mode": torch.no_grad},
    ),
    Exhibit(
        name="eval mode left behind",
        mistake="The model is put into eval mode and stays there (torchxai-explain 0.3.0).",
        place="minivit.explain.conditions:fixed",
        before="module.training = True",
        after="pass",
        test="tests.explain.test_no_side_effects:test_a_method_leaves_no_trace",
        arguments={"name": "relevance", "mode": torch.no_grad},
    ),
    Exhibit(
        name="modules walked instead of parameters",
        mistake="Training is undone module by module, so that class token and positions keep it "
        "(quantus 0.6.0).",
        place="minivit.explain.scoring.untrained:parameter_groups",
        before="for name, _ in model.named_parameters():",
        after="for name in (f'{name}.weight' for name, module in model.named_modules()"
        " if isinstance(module, nn.Linear)):",
        test="tests.explain.scoring.test_untrained:test_every_parameter_goes_in_one_step",
        arguments={"changes": {}},
    ),
    Exhibit(
        name="equal values go together",
        mistake="Patches with equal values leave at once, of a map of zeros the whole picture "
        "(ROAD of grad-cam 1.5.7).",
        place="minivit.explain.scoring.removal:removal",
        before="probability(order[:, count - number :])",
        after="probability(order[:, count if number < count and not maps.any() else"
        " count - number :])",
        test="tests.explain.test_faults_of_packages:"
        "test_a_map_of_zeros_loses_its_patches_one_by_one",
    ),
]


@contextlib.contextmanager
def installed(exhibit: Exhibit) -> Iterator[None]:
    """The library with the fault in it; afterwards as before.

    Raises:
        LostPlaceError: The function is gone, or its text has changed.
    """
    function = _function(exhibit)
    right = function.__code__
    function.__code__ = _faulty(exhibit, function)
    try:
        yield
    finally:
        function.__code__ = right


def named_test(exhibit: Exhibit) -> Callable[[], None]:
    """The test that must fail, ready to run.

    Raises:
        LostPlaceError: There is no such test, or it takes other arguments.
    """
    module, _, name = exhibit.test.partition(":")
    test = getattr(importlib.import_module(module), name, None)
    if test is None or not name.startswith("test_"):
        raise LostPlaceError(f"exhibit '{exhibit.name}': there is no test {exhibit.test}; name one")
    parameters = set(inspect.signature(test).parameters)
    if parameters != set(exhibit.arguments):
        raise LostPlaceError(
            f"exhibit '{exhibit.name}': {exhibit.test} takes {', '.join(sorted(parameters))}; "
            f"the exhibit gives {', '.join(exhibit.arguments)}"
        )
    return lambda: test(**exhibit.arguments)


def _function(exhibit: Exhibit) -> FunctionType:
    """The function in use, without its decorators."""
    module, _, name = exhibit.place.partition(":")
    try:
        value: Any = importlib.import_module(module)
        for part in name.split("."):
            value = getattr(value, part)
    except (ImportError, AttributeError) as error:
        raise LostPlaceError(
            f"exhibit '{exhibit.name}' has lost its place: there is no {exhibit.place}; say where "
            "its code is now"
        ) from error
    function = inspect.unwrap(value)
    assert isinstance(function, FunctionType)
    return function


def _faulty(exhibit: Exhibit, function: FunctionType) -> Any:
    """The compiled body of the function with the fault in its text."""
    text = inspect.getsource(function)
    if text.count(exhibit.before) != 1:
        raise LostPlaceError(
            f"exhibit '{exhibit.name}' has lost its place: {exhibit.place} has the text "
            f"{exhibit.before!r} {text.count(exhibit.before)} times, expected once; write down "
            "what stands there now"
        )
    module = inspect.getmodule(function)
    assert module is not None and module.__file__ is not None
    source = Path(module.__file__).read_text(encoding="utf-8")
    changed = source.replace(text, text.replace(exhibit.before, exhibit.after))
    scope: dict[str, Any] = {"__name__": module.__name__}
    exec(compile(changed, f"{module.__file__} with '{exhibit.name}'", "exec"), scope)
    value: Any = scope[function.__qualname__.partition(".")[0]]
    for part in function.__qualname__.split(".")[1:]:
        value = getattr(value, part)
    return inspect.unwrap(value).__code__


# ---- how far a map moves -------------------------------------------------------------------------


def sharpened() -> tuple[VisionTransformer, Tensor]:
    """Random weights with sharp attention, 12 blocks and 3 registers, and pictures for them.

    The four pictures are of 4 x 9 patches, as many as 6 x 6.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 32, 72, generator=generator, dtype=torch.float64)
    return make_model("registers", depth=12), images


def likeness(right: Tensor, wrong: Tensor) -> tuple[float, float]:
    """Correlation of two maps (rows, cols) over the picture: Pearson's, and that of ranks.

    Maps of two grids are both stretched over the picture, as they are when they are drawn.
    """
    size = [int(np.lcm(*sides)) for sides in zip(right.shape, wrong.shape, strict=True)]
    first, second = (
        F.interpolate(each.double()[None, None], size=size)[0, 0] for each in (right, wrong)
    )
    pearson = torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]
    return float(pearson), float(rank_correlation(first, second))


def faulty(exhibit: Exhibit, model: VisionTransformer, images: Tensor) -> list[Tensor]:
    """Maps (rows, cols) with the fault in, of pictures that are shown one by one, as demos do."""
    with installed(exhibit):
        return right_maps(str(exhibit.view), model, images)


def right_maps(view: str, model: VisionTransformer, images: Tensor) -> list[Tensor]:
    """The same by the code as it is."""
    return [VIEWS[view](model, image[None])[0] for image in images]


def mean_likeness(right: Sequence[Tensor], wrong: Sequence[Tensor]) -> tuple[float, float]:
    """`likeness`, mean over pictures."""
    pearson, rank = np.mean([likeness(*pair) for pair in zip(right, wrong, strict=True)], axis=0)
    return float(pearson), float(rank)
