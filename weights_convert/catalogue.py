"""Published weights that can be converted by name: where they lie, and what files do not say.

Two tables stand beside this module. `timm_models.tsv` is made by
`tests/references/make_timm_models.py`: the ViTs of timm, with what neither their tensors' names nor
shapes tell. `other_models.tsv` has the other projects', with addresses, numbers and licences as the
projects themselves state them. A licence is that of the weights where there is one, else of the
code, which is then said.

Names are NAME or NAME.TAG, as timm writes them: one model, several sets of weights. NAME alone
means its first tag, the project's own default where it has one.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from urllib.parse import urljoin

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class TimmModel:
    """A set of weights of timm's, as timm configures it.

    Attributes:
        name: NAME.TAG.
        num_heads: Heads of each attention.
        activation: In minivit's words.
        layer_norm_eps: Epsilon of every LayerNorm.
        image_height, image_width: Pixels that the position embeddings are made for.
        num_classes: Outputs of the head; 0: no head.
        pooling: "cls" or "mean" (over the patch tokens).
        crop_fraction: timm's crop_pct.
        crop_mode: timm's word: center, squash, border.
        filter: Of the resizing: bicubic, bilinear.
        mean, std: Of red, green, blue, on the scale 0..1.
        parameters: How many weights, with that head.
        hub: Repository on the Hugging Face Hub; empty: none has them in timm's layout.
        licence: As timm states it; empty: it states none.
    """

    name: str
    num_heads: int
    activation: str
    layer_norm_eps: float
    image_height: int
    image_width: int
    num_classes: int
    pooling: str
    crop_fraction: float
    crop_mode: str
    filter: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    parameters: int
    hub: str
    licence: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A set of weights that can be downloaded. Each entry's files want a folder of their own.

    Attributes:
        name: Unique in the catalogue.
        source: The project.
        format: The converter's word for the layout.
        address: Of the weights.
        file_name: What to call them.
        parameters: Weights of the model that comes out: of CLIP its image tower alone.
        megabytes: To download, in millions of bytes; nearly always 4 bytes a weight.
        licence: As the project states it; "not stated" otherwise.
        sha256: How the weights' SHA-256 starts; empty: unknown.
        extra: (address, file name) of what the converter needs besides.
    """

    name: str
    source: str
    format: str
    address: str
    file_name: str
    parameters: int
    megabytes: int
    licence: str
    sha256: str = ""
    extra: tuple[tuple[str, str], ...] = ()


def catalogue() -> dict[str, Entry]:
    """All entries by name, in the order in which a list shows them."""
    return dict(_entries())


def find(name: str) -> Entry:
    """The entry of this name, or the first of NAME.TAG where a NAME is given.

    Raises:
        ValueError: No such entry; the message names the nearest ones.
    """
    entries = _entries()
    defaults = _defaults(entries)
    if name in entries:
        return entries[name]
    if name in defaults:
        return entries[defaults[name]]
    written = {known.lower(): known for known in (*entries, *defaults)}
    nearest = difflib.get_close_matches(name.lower(), written, n=4)
    hint = f"; the nearest are {', '.join(written[found] for found in nearest)}" if nearest else ""
    raise ValueError(
        f"no published weights are called {name!r}{hint} (all names: python -m weights_convert "
        "--list)"
    )


def timm_model(name: str) -> TimmModel | None:
    """What timm says about NAME.TAG, or about the default tag of NAME; None: minivit has no such.

    Args:
        name: Without the ending of a file.
    """
    models = _timm_models()
    return models.get(_defaults(models).get(name, name))


def _defaults(names: Iterable[str]) -> dict[str, str]:
    """NAME -> the first NAME.TAG."""
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(name.partition(".")[0], name)
    return first


@cache
def _timm_models() -> dict[str, TimmModel]:
    models = {}
    for row in _rows("timm_models.tsv"):
        red, green, blue = map(float, row["mean"].split(","))
        std_red, std_green, std_blue = map(float, row["std"].split(","))
        models[row["name"]] = TimmModel(
            name=row["name"],
            num_heads=int(row["num_heads"]),
            activation=row["activation"],
            layer_norm_eps=float(row["layer_norm_eps"]),
            image_height=int(row["image_height"]),
            image_width=int(row["image_width"]),
            num_classes=int(row["num_classes"]),
            pooling=row["pooling"],
            crop_fraction=float(row["crop_fraction"]),
            crop_mode=row["crop_mode"],
            filter=row["filter"],
            mean=(red, green, blue),
            std=(std_red, std_green, std_blue),
            parameters=int(row["parameters"]),
            hub=row["hub"],
            licence=row["licence"],
        )
    return models


@cache
def _entries() -> dict[str, Entry]:
    entries = {}
    for model in _timm_models().values():
        if model.hub:
            entries[model.name] = Entry(
                name=model.name,
                source="timm",
                format="timm",
                address=f"https://huggingface.co/{model.hub}/resolve/main/model.safetensors",
                file_name=f"{model.name}.safetensors",
                parameters=model.parameters,
                megabytes=_megabytes(model.parameters),
                licence=model.licence or "not stated",
            )
    for row in _rows("other_models.tsv"):
        address, parameters = row["address"], int(row["parameters"])
        # Files from the same folder as the weights are written without it.
        extra = [urljoin(address, file) for file in row["extra"].split()]
        entries[row["name"]] = Entry(
            name=row["name"],
            source=row["source"],
            format=row["format"],
            address=address,
            file_name=PurePosixPath(address).name,
            parameters=parameters,
            megabytes=int(row["megabytes"] or _megabytes(parameters)),
            licence=row["licence"],
            sha256=row["sha256"],
            extra=tuple((file, PurePosixPath(file).name) for file in extra),
        )
    return entries


def _megabytes(parameters: int) -> int:
    """The size of so many weights in single precision."""
    return round(4 * parameters / 1e6)


def _rows(file: str) -> Iterator[dict[str, str]]:
    with open(_FOLDER / file, encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines, delimiter="\t")
