"""Named ways to train on scenes: the model, the amount of data and the settings.

Each entry is a lab note: what it is for, how long it took on which machine, what to expect.
"""

from __future__ import annotations

from dataclasses import dataclass

from minivit.training.settings import TrainingSettings


@dataclass(frozen=True, kw_only=True)
class SceneRecipe:
    """A model and its training on scenes.

    Attributes:
        about: One line for --help.
        dim: Width of the tokens; heads are 32 wide.
        depth: Number of blocks.
        num_scenes: Training scenes, of seed 0.
        settings: How to train.
        image_size: (height, width) of the scenes in pixels.
        patch_size: (height, width) in pixels.
    """

    about: str
    dim: int
    depth: int
    num_scenes: int
    settings: TrainingSettings
    image_size: tuple[int, int] = (64, 64)
    patch_size: tuple[int, int] = (8, 8)


RECIPES: dict[str, SceneRecipe] = {
    # python train.py
    # Two cores of an AMD EPYC (Zen 5), torch 2.13, seed 0: 4 min 44 s in all; 86.4 % of the full
    # test scenes right, 92.0 % of the easy ones. fp32: at this width bfloat16 is no faster.
    "scenes": SceneRecipe(
        about="five minutes on two cores",
        dim=64,
        depth=4,
        num_scenes=45_000,
        settings=TrainingSettings(epochs=5, batch_size=32, lr=8e-3, token_loss=3.0),
    ),
    # python train.py classify --recipe scenes-shipped --out runs/shipped
    # The weights inside the package: best.safetensors of this command, trained at commit 0064f76
    # with these settings. The same machine, busy with other things meanwhile: 55 min; 99.8 % of the
    # full test scenes right, 100.0 % of the easy ones.
    "scenes-shipped": SceneRecipe(
        about="how the weights inside the package were trained",
        dim=96,
        depth=4,
        num_scenes=100_000,
        settings=TrainingSettings(epochs=12, batch_size=32, lr=6e-3, token_loss=3.0),
    ),
}
