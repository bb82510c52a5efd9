"""Recipes: what to train on what and how, in one TOML file (https://toml.io).

A recipe is a flat table whose keys are the fields of `ClassifyRecipe` or `CaptionRecipe`; keys that
are left out have the defaults given there. `train.py keys` lists them. Training in
several phases, one after the other, is a `[[phases]]` table each, whose keys replace those of the
recipe for that phase. What the command line says wins over the recipe, in every phase; the merged
result is saved in the run folder, and `--recipe RUN/recipe.toml` does the same once more.

The recipes of the package lie in `recipes/` beside this module, as lab notes: the command, the
machine, the time and the number to expect.

Next: `minivit/training/task.py`, what the loop asks of a model and its data.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

from minivit.fields import is_number, renamed_fields, require, require_choice
from minivit.training.recipe_toml import RecipeError, read_recipe
from minivit.training.settings import OLD_NAMES, Settings

_OTHER_NAMES = {"learning_rate": "lr", "rate": "lr", "wd": "weight_decay", "batch": "batch_size"}
Phase = Mapping[str, Any]
PositionStart = Literal["random", "sine"]


@dataclass(frozen=True, kw_only=True)
class Recipe(Settings):
    """The keys of both kinds of recipes, beside the settings.

    Attributes:
        about: Purpose of the recipe, in one line.
        recipe: Name of the recipe.
        data: "scenes", or the place of the photos.
        weights: Checkpoint to start from; "": none.
        num_scenes: Number of training scenes, drawn from the seed, where the data is scenes.
        limit: Number of training samples to use, the first ones; 0: all.
        workers: Processes that draw scenes or open photos.
        phases: Tables [[phases]] of a recipe file, one a phase, with the settings that differ from
            those of the recipe; none: one phase.
    """

    about: str = ""
    recipe: str = ""
    data: str = "scenes"
    weights: str = ""
    num_scenes: int = 0
    limit: int = 0
    workers: int = 2
    phases: tuple[Phase, ...] = ()

    task: ClassVar[str] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_scenes", "limit", "workers"):
            require(self, name, is_number(getattr(self, name), 0), "at least 0")
        self.settings_of_phases()  # refuses impossible values of a phase

    def settings_of_phases(self) -> list[Settings]:
        """The settings of each phase, in order."""
        names = [field.name for field in dataclasses.fields(Settings)]
        whole = {name: getattr(self, name) for name in names}
        phases = [
            _checked(Settings, phase, f"phase {number}")
            for number, phase in enumerate(self.phases, start=1)
        ]
        return [Settings(**whole | phase) for phase in phases or [{}]]

    def num_training_scenes(self) -> int:
        """The number of scenes to draw for training, `limit` at most.

        Raises:
            ValueError: The number is 0, as in a recipe for photos.
        """
        if not self.num_scenes:
            raise ValueError(
                f"num_scenes is 0, recipe {self.recipe!r} is for photos: give --data, or "
                "--set num_scenes=N"
            )
        return min(self.num_scenes, self.limit or self.num_scenes)

    def to_dict(self) -> dict[str, Any]:
        """All fields as TOML knows them, the task first; steps and phases where there are some."""
        values = {"task": self.task, **dataclasses.asdict(self)}
        for name in ("steps", "phases"):  # run folders of before have no steps
            if not values[name]:
                del values[name]
        return values


@renamed_fields(OLD_NAMES)
@dataclass(frozen=True, kw_only=True)
class ClassifyRecipe(Recipe):
    """A classifier of scenes or photos.

    Attributes:
        image_size: Side of the pictures in pixels; 0: that of the weights.
        patch_size: Side of a patch of a new model in pixels. A model that starts from weights has
            their patch size, width, depth and heads.
        dim: Width of the tokens of a new model.
        depth: Number of blocks of a new model.
        num_heads: Number of heads of each attention of a new model.
        drop_path: Stochastic depth of the last block, growing linearly from 0 at the first.
        pos_embed_start: Position embeddings of a new model: "random" (normal, deviation 0.02) or
            "sine" (2-D sines, neighbours begin alike).
        token_loss: Weight of the loss that asks every patch of a scene what it shows.
        place_loss: Weight of the loss that asks every token of a scene where the main object is.
        strict: Stop at the first photo that cannot be read, instead of leaving such photos out.
        labels: File with the names of the classes (JSON, or a name a line); "": classes.json or
            classes.txt beside the photos, where there is one; "folders": the classes are called
            what their folders or files are.
        held_out: Share of the photos held out where the data has no validation split.
        crop_scale: Range of the share of the photo that a random crop shows; []: the whole photo
            as the model's own preprocessing sees it.
        crop_ratio: Range of width / height of that crop.
        flip: Share of photos that are mirrored.
        rotation: Largest angle by which photos are turned, in degrees.
        brightness: Strength of random changes of the brightness; 0: none.
        contrast: Strength of random changes of the contrast; 0: none.
        saturation: Strength of random changes of the saturation; 0: none.
        hue: Strength of random changes of the hue, 0 to 0.5; 0: none.
        rand_augment: Operations of RandAugment a photo; 0: none.
        rand_magnitude: Strength of these operations, 0 to 30.
        erasing: Share of photos of which a box is erased.
        mixup: α of MixUp; 0: none. Where mixup and cutmix are given, each step takes one of them.
        cutmix: α of CutMix; 0: none.
    """

    image_size: int = 0
    patch_size: int = 16
    dim: int = 384
    depth: int = 12
    num_heads: int = 6
    drop_path: float = 0.0
    pos_embed_start: PositionStart = "random"
    token_loss: float = 0.0
    place_loss: float = 0.0
    strict: bool = False
    labels: str = ""
    held_out: float = 0.2
    crop_scale: tuple[float, ...] = ()
    crop_ratio: tuple[float, ...] = (3 / 4, 4 / 3)
    flip: float = 0.0
    rotation: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    rand_augment: int = 0
    rand_magnitude: int = 9
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    task = "classify"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("crop_scale", "crop_ratio"):
            lengths = (0, 2) if name == "crop_scale" else (2,)
            good = len(getattr(self, name)) in lengths
            require(self, name, good, "two numbers, [low, high]")
        good = is_number(self.held_out) and 0 < self.held_out < 1
        require(self, "held_out", good, "a share above 0 and below 1")
        for name in ("image_size", "mixup", "cutmix", "token_loss", "place_loss", "rotation"):
            require(self, name, is_number(getattr(self, name), 0), "at least 0")
        require_choice(self, "pos_embed_start", PositionStart)
        if self.labels and self.data == "scenes":
            raise ValueError(
                f"labels is {self.labels!r}, but the classes of scenes are known: it is for photos"
            )


@renamed_fields(OLD_NAMES)
@dataclass(frozen=True, kw_only=True)
class CaptionRecipe(Recipe):
    """A captioner of scenes or photos.

    Attributes:
        backbone: "vit": the given or the shipped one; "resnet50", "resnet101": with a dilated last
            stage.
        backbone_lr: Highest learning rate of the backbone; 0 leaves it as it is, and saves its
            backward pass.
        vocab: File of word-pieces for a new captioner of photos, one a line.
        skip_missing: Leave out captions of photos that are not there, instead of stopping.
        dim: Width of the tokens after the backbone.
        num_heads: Number of heads of each attention after the backbone.
        hidden_dim: Width inside the MLPs of encoder and decoder.
        encoder_depth: Number of encoder blocks between backbone and decoder.
        decoder_depth: Number of decoder blocks.
        head_dim: Width inside the MLP that gives the words.
        dropout: Share of values that encoder and decoder drop.
        max_length: Number of positions for words; 0: as many as the longest caption of scenes
            needs, 128 for photos.
        augment: Whether training photos get CATR's augmentation.
        captions_per_scene: Number of captions of each training scene, one an epoch in turn.
    """

    backbone: Literal["vit", "resnet50", "resnet101"] = "vit"
    backbone_lr: float = 0.0
    vocab: str = ""
    skip_missing: bool = False
    dim: int = 128
    num_heads: int = 4
    hidden_dim: int = 256
    encoder_depth: int = 0
    decoder_depth: int = 2
    head_dim: int = 128
    dropout: float = 0.1
    max_length: int = 0
    augment: bool = False
    captions_per_scene: int = 1

    task = "caption"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "captions_per_scene", is_number(self.captions_per_scene, 1), "at least 1")
        for name in ("backbone_lr", "max_length"):
            require(self, name, is_number(getattr(self, name), 0), "at least 0")
        for phase in self.settings_of_phases():
            for name, value in (("trainable", "all"), ("layer_decay", 1.0)):
                if getattr(phase, name) != value:
                    raise ValueError(
                        f"{name} is {getattr(phase, name)!r}: a captioner has {value!r}; how its "
                        "backbone moves is said by backbone_lr"
                    )

    def vocabulary_file(self) -> Path:
        """The word-pieces of a new captioner of photos.

        Raises:
            ValueError: None are given.
        """
        if not self.vocab:
            raise ValueError(
                "captions of photos need a vocabulary: give BERT's with --vocab vocab.txt"
            )
        return Path(self.vocab)


AnyRecipe = TypeVar("AnyRecipe", ClassifyRecipe, CaptionRecipe)


def make_recipe(
    kind: type[AnyRecipe], name: str, given: Mapping[str, Any] | None = None
) -> AnyRecipe:
    """A recipe with the command line laid over it.

    Keys by the names that they had before are read, with a DeprecationWarning that says the new
    name.

    Args:
        kind: Class of the recipe.
        name: Name of a recipe of the package, or a file.
        given: Values of the command line, which win over the recipe, in every phase too.

    Raises:
        RecipeError: As `read_recipe`; a recipe of another task; an unknown key, with the nearest
            known one; a value of a wrong type.
        ValueError: A value that is not possible.
    """
    values = read_recipe(name)
    task = values.pop("task", kind.task)
    if task != kind.task:
        raise RecipeError(f"{name}: a recipe for {task!r}, this command is {kind.task!r}")
    phases = values.pop("phases", [])
    if not isinstance(phases, list) or not all(isinstance(phase, dict) for phase in phases):
        raise RecipeError(f"{name}: phases are written as tables, [[phases]]")
    values = _checked(kind, values, name)
    given = _checked(kind, given or {}, "the command line")
    values |= given
    kept = [
        {
            key: value
            for key, value in _checked(Settings, phase, f"{name}, phase {number}").items()
            if key not in given
        }
        for number, phase in enumerate(phases, start=1)
    ]
    if missing := [key for key in ("epochs", "batch_size", "lr") if key not in values]:
        if not kept or any(key not in phase for key in missing for phase in kept):
            raise RecipeError(f"{name}: {', '.join(missing)} missing")
        values |= {key: kept[0][key] for key in missing}
    return kind(**values, phases=tuple(kept))


def _checked(kind: type[Settings], values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The values by the names of the fields, of the types that the fields have."""
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind) if field.name != "phases"]
    checked = {}
    for key, value in values.items():
        name = OLD_NAMES.get(key, key)
        if name != key:
            message = f"{source}: {key} is called {name} now"
            warnings.warn(message, DeprecationWarning, stacklevel=4)  # who calls make_recipe
            if name in values:
                raise RecipeError(f"{message}, and is given by both names: leave out {key}")
        if name not in names:
            raise RecipeError(f"{source}: there is no key {key!r}: {_hint(key, names)}")
        checked[name] = _of_type(value, hints[name], f"{source}: {name}")
    return checked


def with_new_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """The table of a recipe by the names that its keys, and those of its phases, have now."""
    table = {OLD_NAMES.get(key, key): value for key, value in values.items()}
    if isinstance(table.get("phases"), list):
        table["phases"] = [
            with_new_names(phase) if isinstance(phase, Mapping) else phase
            for phase in table["phases"]
        ]
    return table


def defaults(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that this table of a recipe could leave out, with the values that they then have."""
    kind = CaptionRecipe if recipe.get("task") == CaptionRecipe.task else ClassifyRecipe
    fields = [each for each in dataclasses.fields(kind) if each.default is not dataclasses.MISSING]
    return {field.name: field.default for field in fields if field.name != "phases"}


def _hint(key: str, names: Sequence[str]) -> str:
    """A remark on a key that is not among these names: what to write instead."""
    if key == "phases":
        return "phases are tables of a recipe file, [[phases]]"
    if any(hasattr(kind, key) for kind in (ClassifyRecipe, CaptionRecipe)) and "data" not in names:
        return "all phases have that of the recipe"
    near = [name for name in (_OTHER_NAMES.get(key),) if name in names]
    near += difflib.get_close_matches(key, names, 1, 0.5)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}"


def _of_type(value: Any, hint: Any, what: str) -> Any:
    """A value of TOML as a field holds it: lists become tuples, floats may be whole numbers."""
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            choices = ", ".join(map(str, get_args(hint)))
            raise RecipeError(f"{what} is {value!r}: choose from {choices}")
        return value
    if get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise RecipeError(f"{what} is {value!r}, expected a list")
        return tuple(_of_type(each, get_args(hint)[0], what) for each in value)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint or (hint is float and not math.isfinite(value)):
        names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
        raise RecipeError(f"{what} is {value!r}, expected {names.get(hint, hint)}")
    return value
