"""What is measured on each picture before means are taken: maps, and figures of each map.

`score.py` says what the figures are for. Everything here is picture by picture,
so that a row can also be put together of several methods, as the row of a head that was chosen on
other pictures is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from minivit.explain.scoring.batching import Batch, Methods, batches, device_of, maps_of, predicted
from minivit.explain.scoring.examples import Example
from minivit.explain.scoring.rank_correlation import rank_correlation
from minivit.explain.scoring.removal import removal
from minivit.explain.scoring.truth import against_truth, chance
from minivit.explain.scoring.untrained import before_training, parameter_groups, randomised
from minivit.progress import Bar
from minivit.vit import VisionTransformer

Done = Callable[[int], object]
"""Is told how many more pictures are done."""


@dataclass(frozen=True)
class Measured:
    """Figures of the maps of one method, picture by picture.

    Attributes:
        maps: Map (rows, cols) of each picture.
        truth: Figures beside masks by name, as `Truth` has them, each (pictures,); empty without
            masks.
        untrained: Those of the model before training, each (pictures, draws).
        probes: Figures without truth by name, each (probed,) or (probed, points of a curve).
    """

    maps: list[Tensor]
    truth: dict[str, Tensor]
    untrained: dict[str, Tensor]
    probes: dict[str, Tensor]


def measure(
    model: VisionTransformer,
    methods: Methods,
    data: Sequence[Example],
    probed: Sequence[int],
    *,
    seed: int,
    draws: int,
    points: int,
    batch_size: int,
    bar: Bar,
) -> tuple[dict[str, Measured], dict[str, Tensor]]:
    """Measures all methods; arguments are those of `minivit.explain.scores`.

    Args:
        model: Model to explain.
        methods: Functions by name.
        data: Pictures.
        probed: Numbers of the pictures for the figures without truth.
        seed: Seed for methods of chance and for weights.
        draws: Number of draws of the weights before training.
        points: Number of steps of a curve.
        batch_size: Number of pictures computed together.
        bar: Progress.

    Returns:
        Figures by method; and what chance gets, by figure, each (pictures,): empty without masks.
    """
    targets: dict[int, int] = {}
    for batch in batches(data, range(len(data)), batch_size):
        classes = predicted(model, batch)
        if classes is not None:
            targets.update(zip(batch.numbers, classes.tolist(), strict=True))
    whole = len(data) * len(methods)

    def explained(of: VisionTransformer, done: Callable[[int], object]) -> Explained:
        return explain_all(of, methods, data, targets, seed=seed, batch_size=batch_size, done=done)

    maps, truth, chance = explained(model, bar("maps", whole))
    untrained: list[dict[str, dict[str, Tensor]]] = []
    if chance:
        done = bar("maps of random weights", whole * draws)
        untrained = [
            explained(before_training(model, seed + draw), done).truth for draw in range(draws)
        ]
    steps = len(parameter_groups(model)) + bool(targets)
    probes = probe(
        model,
        methods,
        data,
        targets,
        maps,
        probed,
        seed=seed,
        batch_size=batch_size,
        points=points,
        done=bar("removed patches, random blocks", len(probed) * len(methods) * steps),
    )
    return {
        name: Measured(
            maps[name],
            truth[name],
            {
                figure: torch.stack([draw[name][figure] for draw in untrained], dim=1)
                for figure in truth[name]
            },
            probes[name],
        )
        for name in methods
    }, chance


class Explained(NamedTuple):
    """What one pass over the pictures gives.

    Attributes:
        maps: Maps of each method, one (rows, cols) a picture.
        truth: Figures of each method beside masks, each (pictures,); empty without masks.
        chance: What chance gets, by the same names.
    """

    maps: dict[str, list[Tensor]]
    truth: dict[str, dict[str, Tensor]]
    chance: dict[str, Tensor]


def explain_all(
    model: VisionTransformer,
    methods: Methods,
    data: Sequence[Example],
    targets: Mapping[int, int],
    *,
    seed: int,
    batch_size: int,
    done: Done,
) -> Explained:
    """Maps of all pictures by all methods, and their figures beside masks.

    Args:
        model: Model to explain.
        methods: Functions by name.
        data: Pictures.
        targets: Class of each picture to explain; empty for a model without a head.
        seed: Seed for methods of chance.
        batch_size: Number of pictures computed together.
        done: Progress; each picture counts once a method.
    """
    maps: dict[str, list[Tensor]] = {name: [] for name in methods}
    truths: dict[str, list[dict[str, Tensor]]] = {name: [] for name in methods}
    chances: list[dict[str, Tensor]] = []
    for batch in batches(data, range(len(data)), batch_size):
        target = _targets(targets, batch)
        if batch.cells is not None:
            chances.append(chance(batch.cells)._asdict())
        for name, method in methods.items():
            made = maps_of(method, model, batch, target, seed)
            maps[name].extend(made)
            if batch.cells is not None:
                truths[name].append(against_truth(made, batch.cells)._asdict())
            done(len(batch.numbers))
    return Explained(
        maps, {name: _joined(parts) for name, parts in truths.items()}, _joined(chances)
    )


def probe(
    model: VisionTransformer,
    methods: Methods,
    data: Sequence[Example],
    targets: Mapping[int, int],
    maps: Mapping[str, Sequence[Tensor]],
    numbers: Sequence[int],
    *,
    seed: int,
    batch_size: int,
    points: int,
    done: Done,
) -> dict[str, dict[str, Tensor]]:
    """Figures without truth of some pictures: removed patches, and training undone step by step.

    Args:
        model: Model to explain.
        methods: Functions by name.
        data: Pictures.
        targets: As in `explain_all`; empty: no patches are removed.
        maps: Maps of all pictures, by method.
        numbers: Numbers of the pictures that are probed.
        seed: Seed for methods of chance, and for weights as they are before training.
        batch_size: As in `explain_all`.
        points: As in `removal`.
        done: Progress; each picture counts once a method for its curves, where they are made, and
            once a method and step.

    Returns:
        For each method the fields of `Removal`, and `steps` (probed, steps of `parameter_groups`).
    """
    curves: dict[str, list[dict[str, Tensor]]] = {name: [] for name in methods}
    for batch in batches(data, numbers, batch_size) if targets else ():
        target = _targets(targets, batch)
        assert target is not None
        images = batch.images.to(device_of(model))
        for name in methods:
            own = torch.stack([maps[name][number] for number in batch.numbers])
            curves[name].append(removal(model, images, own, target, points=points)._asdict())
            done(len(batch.numbers))
    steps: dict[str, list[Tensor]] = {name: [] for name in methods}
    for _, changed in randomised(model, seed):
        parts: dict[str, list[Tensor]] = {name: [] for name in methods}
        for batch in batches(data, numbers, batch_size):
            for name, method in methods.items():
                own = torch.stack([maps[name][number] for number in batch.numbers])
                other = maps_of(method, changed, batch, _targets(targets, batch), seed)
                parts[name].append(rank_correlation(own, other))
                done(len(batch.numbers))
        for name in methods:
            steps[name].append(torch.cat(parts[name]))
    return {
        name: {**_joined(curves[name]), "steps": torch.stack(steps[name], dim=1)}
        for name in methods
    }


def _targets(targets: Mapping[int, int], batch: Batch) -> Tensor | None:
    return torch.tensor([targets[number] for number in batch.numbers]) if targets else None


def _joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Figures of batches as figures of all pictures."""
    return {name: torch.cat([part[name] for part in parts]) for name in (parts[0] if parts else ())}


def assembled(
    sources: Sequence[Measured], choice: Sequence[int], probed: Sequence[int]
) -> Measured:
    """Figures that come, picture by picture, from one of several methods.

    Args:
        sources: Figures of each method.
        choice: Number of the method that each picture takes.
        probed: Numbers of the pictures that were probed.
    """

    def picked(kind: str, numbers: Sequence[int]) -> dict[str, Tensor]:
        return {
            name: torch.stack(
                [getattr(sources[choice[n]], kind)[name][i] for i, n in enumerate(numbers)]
            )
            for name in getattr(sources[0], kind)
        }

    everyone = range(len(choice))
    return Measured(
        [sources[choice[number]].maps[number] for number in everyone],
        picked("truth", everyone),
        picked("untrained", everyone),
        picked("probes", probed),
    )
