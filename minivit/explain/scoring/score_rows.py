"""From figures of pictures to the row of a method: means, intervals, comparison with chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minivit.explain.scoring.bootstrap import Estimate, bootstrap
from minivit.explain.scoring.measured import Measured
from minivit.explain.scoring.rank_correlation import rank_correlation
from minivit.fields import to_dict

_FEWEST = 6  # pictures of which a figure can be said to be below chance


@dataclass(frozen=True, kw_only=True)
class MethodScores:
    """The row of a method; a figure is None where there was nothing to measure it by.

    Attributes:
        name: Name of the method.
        pictures: Number of pictures of the figures with masks.
        pointing: Part of the pictures whose strongest cell is on the object.
        mass: Part of the map on the object.
        precision: Average precision of the map as a mask.
        untrained: The same three figures, by name, of the model before training.
        chance: What chance gets, by the same names.
        probed: Number of pictures of the figures without masks.
        deletion: Area under `deletion_curve`; the smaller, the better.
        insertion: Area under `insertion_curve`; the larger, the better.
        deletion_curve: Probability of the class while patches are removed, the most important
            first, in even steps from all patches to none (or one, where the head needs one).
        insertion_curve: The same while they come back, the most important first.
        steps: Rank correlation of the map with itself after the training of the head, of the last
            block, …, of all was undone, by the name of the step.
        agreement: Rank correlation with the map of each method, mean over all pictures.
        below_chance: Names of the figures whose difference from chance is below 0 by its whole
            interval; for deletion and insertion chance is the row `random`. Of fewer than six
            pictures none is named: five that all fall short by chance are not rare enough (1 in
            32, where an interval of 95 % allows 1 in 40).
    """

    name: str
    pictures: int
    pointing: Estimate | None
    mass: Estimate | None
    precision: Estimate | None
    untrained: dict[str, Estimate]
    chance: dict[str, Estimate]
    probed: int
    deletion: Estimate | None
    insertion: Estimate | None
    deletion_curve: tuple[float, ...]
    insertion_curve: tuple[float, ...]
    steps: dict[str, Estimate]
    agreement: dict[str, float]
    below_chance: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON knows them."""
        return to_dict(self)


def score_rows(
    measured: Mapping[str, Measured],
    chance: Mapping[str, Tensor],
    steps: Sequence[str],
    pictures: int,
    probed: int,
    seed: int,
) -> list[MethodScores]:
    """Takes means and intervals of figures.

    Args:
        measured: Figures of all methods, `random` among them.
        chance: Figures of chance by name, each (pictures,); empty without masks.
        steps: Names of the steps in which the training was undone.
        pictures: Number of pictures.
        probed: Number of pictures of the figures without truth.
        seed: Seed for the resamples.
    """
    of_all, of_probed = bootstrap(pictures, seed), bootstrap(probed, seed)
    random = measured["random"].probes

    agreement = _agreement([figures.maps for figures in measured.values()])

    def row(index: int, name: str, figures: Measured) -> MethodScores:
        truth, probes = figures.truth, figures.probes
        above = {key: of_all(truth[key] - chance[key]) for key in truth}
        areas: dict[str, Estimate] = {}
        curves: dict[str, tuple[float, ...]] = {}
        for way, sign in (("deletion", -1), ("insertion", 1)):
            if way in probes:
                area = probes[f"{way}_area"]
                areas[way] = of_probed(area)
                above[way] = of_probed(sign * (area - random[f"{way}_area"]))
                curves[way] = tuple(probes[way].mean(dim=0).tolist())
        return MethodScores(
            name=name,
            pictures=pictures,
            pointing=of_all(truth["pointing"]) if truth else None,
            mass=of_all(truth["mass"]) if truth else None,
            precision=of_all(truth["precision"]) if truth else None,
            untrained={key: of_all(values) for key, values in figures.untrained.items()},
            chance={key: of_all(values) for key, values in chance.items()},
            probed=probed,
            deletion=areas.get("deletion"),
            insertion=areas.get("insertion"),
            deletion_curve=curves.get("deletion", ()),
            insertion_curve=curves.get("insertion", ()),
            steps={
                step: of_probed(probes["steps"][:, number]) for number, step in enumerate(steps)
            },
            agreement=dict(zip(measured, agreement[index].tolist(), strict=True)),
            below_chance=tuple(
                key
                for key, estimate in above.items()
                if estimate.high < 0 and (pictures if key in truth else probed) >= _FEWEST
            ),
        )

    return [row(index, *item) for index, item in enumerate(measured.items())]


def _agreement(maps: Sequence[Sequence[Tensor]]) -> Tensor:
    """(methods, methods): rank correlation of maps, mean over pictures; of each method its maps."""
    by_grid: dict[torch.Size, list[int]] = {}
    for number, each in enumerate(maps[0]):
        by_grid.setdefault(each.shape, []).append(number)
    total = torch.zeros(len(maps), len(maps), dtype=torch.float64)
    for numbers in by_grid.values():
        alike = torch.stack(
            [torch.stack([own[number].double() for number in numbers]) for own in maps]
        )  # (methods, pictures, rows, cols)
        for index, own in enumerate(alike):
            total[index] += rank_correlation(own.expand_as(alike), alike).sum(dim=1)
    return total / len(maps[0])
