"""A score beside every map: `minivit.explain.scores` is the function `scores` of this module.

The package exports the function by that name, so that the module has another one: `explain.scores`
would else be a module or a function, by what was imported last.

With masks, a map is held against what is known of the picture (`truth.py`): pointing, mass on the
object, average precision, each beside what chance gets and beside what the same method gets from
the model before its training, since position alone points. Without masks, a map is held against
the model (`removal.py`, `untrained.py`): does the class go with the patches that the map ranks
first, does the map go when the training goes; and against other maps (`rank_correlation.py`).

Three maps that know nothing of the model always stand beside the others: `random`, a blob in the
`centre`, and `edges` of the picture. The class is the one that the model predicts.

Intervals are of 2,000 resamples of the pictures (`bootstrap.py`). Figures in which a map is below
chance by its whole interval are named: such a map points away, which is a finding and not noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from minivit.explain.methods.attended import attention
from minivit.explain.methods.table import METHODS
from minivit.explain.scoring.batching import Methods, batches, maps_of, predicted
from minivit.explain.scoring.examples import Example, even_numbers
from minivit.explain.scoring.measured import assembled, measure
from minivit.explain.scoring.score_rows import MethodScores, score_rows
from minivit.explain.scoring.untrained import parameter_groups
from minivit.progress import Bar
from minivit.vit import VisionTransformer

BASELINES = ("random", "centre", "edges")


def scores(
    model: VisionTransformer,
    data: Sequence[Example],
    methods: Iterable[str] | Methods | None = None,
    *,
    heads: int | None = None,
    seed: int = 0,
    probes: int = 16,
    draws: int = 3,
    points: int = 20,
    batch_size: int = 8,
    bar: Bar | None = None,
) -> list[MethodScores]:
    """Scores methods of explanation on pictures.

    Args:
        model: Any loaded Vision Transformer; it is left as it was.
        data: Pictures, such as `SceneExamples` or `PhotoExamples` (`examples.py`).
        methods: Names of `METHODS`, or functions of the same shape by name; None: all that work
            for this model, see `usable_methods`. The baselines are added to them.
        heads: Number of a block each of whose heads gets a row too; where there are masks, one more
            row is of the head that was chosen on the other half of the pictures.
        seed: Seed for resamples, halves, random weights and methods of chance.
        probes: Number of pictures, evenly spaced, for what needs no masks: it costs some dozens of
            passes each.
        draws: Number of draws of the weights before training.
        points: Number of steps of the curves of deletion and insertion.
        batch_size: Number of pictures computed together.
        bar: Progress.

    Returns:
        One row a method, in the order given; then heads; then the baselines.

    Raises:
        ValueError: No pictures; an unknown method, or one that does not work for this model; only
            some of the pictures have masks; a number below 1.
    """
    if not len(data):
        raise ValueError("there are no pictures to score maps on")
    if seed < 0:
        raise ValueError(f"seed is {seed}, expected 0 or more")
    numbers = {"probes": probes, "draws": draws, "points": points, "batch_size": batch_size}
    for argument, value in numbers.items():
        if value < 1:
            raise ValueError(f"{argument} is {value}, expected 1 or more")
    table, head_names = _table(model, METHODS if methods is None else methods, heads)
    table, refusals = usable_methods(model, data[0], table)
    named = {
        name: why for name, why in refusals.items() if methods is not None or name in head_names
    }
    if named:
        raise ValueError("; ".join(f"method {name}: {why}" for name, why in named.items()))

    probed = even_numbers(len(data), probes)
    measured, chance = measure(
        model,
        table,
        data,
        probed,
        seed=seed,
        draws=draws,
        points=points,
        batch_size=batch_size,
        bar=bar or _no_bar,
    )
    if len(head_names) > 1 and chance:
        name = f"{head_names[0].rpartition(', ')[0]}, the head chosen on the other half"
        own = [measured[head] for head in head_names]
        mass = torch.stack([each.truth["mass"] for each in own], dim=1)  # (pictures, H)
        choice, _ = chosen_on_the_other_half(mass, seed)
        after = list(measured).index(head_names[-1]) + 1
        rows = list(measured.items())
        rows.insert(after, (name, assembled(own, choice.tolist(), probed)))
        measured = dict(rows)
    return score_rows(measured, chance, list(parameter_groups(model)), len(data), len(probed), seed)


def usable_methods(
    model: VisionTransformer, example: Example, methods: Methods | None = None
) -> tuple[dict[str, Callable[..., Tensor]], dict[str, str]]:
    """Which methods work for a model, tried on one picture.

    Args:
        model: Model to explain.
        example: Picture to try them on.
        methods: Functions by name; None: `METHODS`.

    Returns:
        Those that work; and the name of each other one, with the reason that it gave.
    """
    usable, refusals = {}, {}
    for batch in batches([example], [0], 1):
        target = predicted(model, batch)
        for name, method in (METHODS if methods is None else methods).items():
            try:
                maps_of(method, model, batch, target, seed=0)
            except (ValueError, IndexError) as error:
                refusals[name] = str(error)
            else:
                usable[name] = method
    return usable, refusals


def chosen_on_the_other_half(mass: Tensor, seed: int) -> tuple[Tensor, list[int]]:
    """For each picture the head that has the most mass on the half that the picture is not of.

    Args:
        mass: (pictures, H).
        seed: Seed for the halves.

    Returns:
        (pictures,) numbers of heads; and the head for either half.
    """
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(mass)))
    halves = order.tensor_split(2)
    choice = torch.zeros(len(mass), dtype=torch.long)
    heads = []
    for own, other in (halves, halves[::-1]):
        head = int(mass[other].mean(dim=0).argmax()) if len(other) else 0
        heads.append(head)
        choice[own] = head
    return choice, heads


def _table(
    model: VisionTransformer, methods: Iterable[str] | Methods, heads: int | None
) -> tuple[dict[str, Callable[..., Tensor]], list[str]]:
    """All functions by name, heads and baselines too, in the order of the rows; names of heads."""
    if isinstance(methods, str):
        raise ValueError(f"methods is {methods!r}, expected several names, such as [{methods!r}]")
    if not isinstance(methods, Mapping):
        names = list(methods)
        if unknown := [name for name in names if name not in METHODS]:
            raise ValueError(
                f"no method is called {', '.join(map(repr, unknown))}: choose from "
                f"{', '.join(METHODS)}"
            )
        methods = {name: METHODS[name] for name in names}
    table = {name: method for name, method in methods.items() if name not in BASELINES}
    own: dict[str, Callable[..., Tensor]] = {}
    if heads is not None:
        depth = model.config.depth
        if not -depth <= heads < depth:
            raise ValueError(f"heads of block {heads}: choose from {-depth} to {depth - 1}")
        block = heads % depth
        own = {
            f"attention, block {block}, head {head}": partial(attention, block=block, head=head)
            for head in range(model.config.num_heads)
        }
    given = {name: methods.get(name, METHODS[name]) for name in BASELINES}
    return {**table, **own, **given}, list(own)


def _no_bar(title: str, total: int) -> Callable[[int], object]:
    return lambda number: None
