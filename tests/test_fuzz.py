"""Damaged and lying files by the thousand: every reader answers or refuses, and soon.

The property: a reader returns, or raises a ValueError or an OSError (minivit's own errors are such)
with a message; it does so within seconds. Seeds are fixed, the number of inputs follows from the
time that a test is given: some seconds here, two minutes in all where slow tests run. What fails is
shown with the number by which `one_input` makes it again.
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import io
import json
import random
import signal
import struct
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from safetensors import safe_open

import minivit
from minivit.commands.score_words import read_scores
from minivit.commands.terminal import one_line
from minivit.data.captions.splits import read_captions
from minivit.data.photos.class_names import read_class_names
from minivit.data.photos.idx import read_idx
from minivit.data.photos.masks import read_mask
from minivit.data.photos.splits import read_photos
from minivit.preprocess import check_image, open_image
from minivit.tokenizer import WordPiece
from minivit.training.recipe_toml import read_recipe
from minivit.vit import VisionTransformer
from tests.references.seeded import seeded_weights
from tests.weights_convert.test_formats import stored
from weights_convert import convert, export

SECONDS_FOR_ONE = 10  # a busy machine is slow; what hangs takes longer


class TooLongError(BaseException):
    """Not an Exception: no reader may take it for bad input."""


class Case(NamedTuple):
    """A kind of input.

    Attributes:
        make: Function that writes an input to a folder by a generator, and gives its path.
        read: Function that reads it.
    """

    make: Callable[[Path, random.Random], Path]
    read: Callable[[Path], object]


@contextlib.contextmanager
def soon() -> Iterator[None]:
    """Raises TooLongError after `SECONDS_FOR_ONE`."""

    def late(*_: object) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS_FOR_ONE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# ---- damage --------------------------------------------------------------------------------------

NUMBERS = [
    0,
    1,
    -1,
    2,
    3,
    7,
    10**5,
    10**9,
    2**31,
    2**63,
    -(2**63),
    10**30,
    0.5,
    1e308,
    -0.0,
    5e-324,
]
ODD: list[Any] = [
    *NUMBERS,
    *(float("nan"), float("inf"), -float("inf"), None, True, False),
    *("", "x", "\x1b[2J", "a\nb", "\ud800", "9" * 400, "é" * 300, "../../etc", "sine", "cls", "\0"),
    *([], {}, [[]], [1, 2], [1, 2, 3], ["a", "b"], {"a": 1}, {"depth": 50}, [None], [[1], [2]]),
]


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Bytes of which some are changed, cut away, put in, or doubled."""
    content = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 5, 20])):
        at = chance.randrange(len(content) + 1)
        match chance.randrange(6):
            case 0:
                del content[at:]
            case 1 if at < len(content):
                content[at] ^= 1 << chance.randrange(8)
            case 2 if at < len(content):
                content[at] = chance.choice([0, 255, 10, 34, 44, 91, 123, 27])
            case 3:
                content[at:at] = chance.randbytes(chance.choice([1, 4, 100]))
            case 4:
                del content[at : at + chance.choice([1, 2, 8, 100])]
            case _:
                content[at:at] = content[: chance.choice([1, 8, 64])]
    return bytes(content)


def changed(tree: Any, chance: random.Random) -> Any:
    """A tree of JSON in which some places hold other things, or none, or are called otherwise."""
    tree = json.loads(json.dumps(tree))
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        node, way = tree, []
        while isinstance(node, (dict, list)) and node and (not way or chance.random() < 0.75):
            key = chance.choice(list(node) if isinstance(node, dict) else range(len(node)))
            way.append((node, key))
            node = node[key]
        if not way:
            return copy.deepcopy(chance.choice(ODD))
        parent, key = way[-1]
        match chance.randrange(5):
            case 0:
                del parent[key]
            case 1 if isinstance(parent, dict):
                parent[str(chance.choice(["", "x", "\x1b", "depth", "kind"]))] = parent.pop(key)
            case 2 if isinstance(node, int | float) and not isinstance(node, bool):
                parent[key] = chance.choice([node * 2, node + 1, -node, str(node), [node]])
            case 3 if isinstance(node, list):
                parent[key] = node * 2 if chance.random() < 0.5 else node[:-1]
            case _:
                parent[key] = copy.deepcopy(chance.choice(ODD))
    return tree


# ---- checkpoints ---------------------------------------------------------------------------------


def small_vit() -> VisionTransformer:
    config = minivit.ViTConfig.from_name("debug_patch8_32", num_classes=3)
    model = VisionTransformer(config, labels=["a", "b", "c"])
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    model.load_state_dict(seeded_weights(shapes, 0))
    return model


def parts(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return json.loads(file.metadata()["minivit"]), tensors


def lying_checkpoint(path: Path) -> Callable[[Path, random.Random], Path]:
    """Makes checkpoints that say other things of themselves, or hold other tensors, than `path`."""
    description, tensors = parts(path)

    def make(folder: Path, chance: random.Random) -> Path:
        held = dict(tensors)
        if chance.random() < 0.3:
            name = chance.choice(list(held))
            match chance.randrange(5):
                case 0:
                    del held[name]
                case 1:
                    held[chance.choice(["x", "blocks.1000000.norm1.weight", "\x1b"])] = held[
                        name
                    ].clone()
                case 2:
                    kinds = [torch.int8, torch.bool, torch.float16, torch.float64, torch.int64]
                    held[name] = held[name].to(chance.choice(kinds))
                case 3:
                    held[name] = held[name].flatten()[: chance.choice([0, 1, 3])].clone()
                case _:
                    held[name] = torch.full_like(held[name], chance.choice([3e38, float("nan")]))
        lie = changed(description, chance) if chance.random() < 0.9 else description
        text = json.dumps(lie)
        safetensors.torch.save_file(held, folder / "lie.safetensors", metadata={"minivit": text})
        return folder / "lie.safetensors"

    return make


def lying_export(path: Path) -> Callable[[Path, random.Random], Path]:
    """The same for a file by `--to timm`, which carries minivit's description."""
    whole = path.with_name("export.safetensors")
    export(path, whole)
    with safe_open(whole, framework="pt") as file:
        description = json.loads(file.metadata()["minivit_export"])
    tensors = safetensors.torch.load_file(whole)

    def make(folder: Path, chance: random.Random) -> Path:
        metadata = {"format": "pt", "minivit_export": json.dumps(changed(description, chance))}
        safetensors.torch.save_file(tensors, folder / "lie.safetensors", metadata=metadata)
        return folder / "lie.safetensors"

    return make


def load_and_use(path: Path) -> None:
    """Loads a model and shows it a picture: what was let in has to work or to say why not."""
    model = minivit.load_model(path)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8))
    with torch.inference_mode():
        if isinstance(model, VisionTransformer):
            width, height = model.preprocess.view_size(*picture.size)
            if width * height <= 512 * 512:  # larger ones work too, and take their time
                model(model.preprocess(picture)[None], return_attention=[-1])
        elif max(model.preprocess.image_size) <= 512:
            model.caption([picture], max_length=2)


def convert_two_heads(path: Path) -> object:
    return convert(path, num_heads=2)


def rewritten(name: str, data: bytes) -> Callable[[Path, random.Random], Path]:
    """Makes damaged copies of a file."""

    def make(folder: Path, chance: random.Random) -> Path:
        (folder / name).write_bytes(damaged(data, chance))
        return folder / name

    return make


# ---- data ----------------------------------------------------------------------------------------


def png(number: int, mode: str = "RGB", form: str = "PNG", **options: Any) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 255, (12, 18, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(content, form, **options)
    return content.getvalue()


def table(name: str, text: str, pictures: int = 4) -> Callable[[Path, random.Random], Path]:
    """Makes damaged tables beside pictures that are whole."""
    data = text.encode()

    def make(folder: Path, chance: random.Random) -> Path:
        for number in range(pictures):
            if not (folder / f"{number}.png").exists():
                (folder / f"{number}.png").write_bytes(png(number))
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(damaged(data, chance))
        return folder / name

    return make


def idx(folder: Path, chance: random.Random) -> Path:
    """Four files, of which one is damaged."""
    labels = struct.pack(">II", 0x801, 6) + bytes([0, 1, 0, 1, 0, 1])
    images = struct.pack(">IIII", 0x803, 6, 4, 4) + bytes(96)
    files = {
        f"{part}-{name}": gzip.compress(data)
        for part in ("train", "t10k")
        for name, data in (("labels-idx1-ubyte", labels), ("images-idx3-ubyte", images))
    }
    name = chance.choice(list(files))
    if chance.random() < 0.5:
        files[name] = damaged(files[name], chance)
    else:
        files[name] = gzip.compress(damaged(gzip.decompress(files[name]), chance))
    for name, data in files.items():
        (folder / f"{name}.gz").write_bytes(data)
    return folder


COCO = {
    "images": [{"id": n, "file_name": f"{n}.png"} for n in range(3)],
    "annotations": [{"id": n, "image_id": n, "caption": f"a cat {n}"} for n in range(3)],
}


def coco(folder: Path, chance: random.Random) -> Path:
    for name in ("annotations", "train2017"):
        (folder / name).mkdir(exist_ok=True)
    for number in range(3):
        (folder / "train2017" / f"{number}.png").touch()
    path = folder / "annotations" / "captions_train2017.json"
    text = json.dumps(changed(COCO, chance)).encode()
    path.write_bytes(text if chance.random() < 0.7 else damaged(text, chance))
    return folder


def names(folder: Path, chance: random.Random) -> Path:
    text = json.dumps(changed(chance.choice([["a", "b"], {"0": "a", "1": "b"}]), chance)).encode()
    text = chance.choice([text, b"[" * 10**5, b"a\nb\nc\n"])
    (folder / "names").write_bytes(text if chance.random() < 0.6 else damaged(text, chance))
    return folder / "names"


HF_PHOTO = {
    "size": {"height": 32, "width": 48},
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 2,
    "do_resize": True,
}


def hub_folder(folder: Path, chance: random.Random) -> Path:
    """Weights of transformers that are whole, and JSON files beside them that lie."""
    source = stored("hf_vit")
    if not (folder / "model.safetensors").exists():
        safetensors.torch.save_file(dict(source.weights), folder / "model.safetensors")
    trees = {"config": json.loads(source.metadata["config"]), "preprocessor_config": HF_PHOTO}
    for name, tree in trees.items():
        tree = changed(tree, chance) if chance.random() < 0.7 else tree
        (folder / f"{name}.json").write_text(json.dumps(tree))
    return folder


RECIPE = 'task = "classify"\nepochs = 3\nlr = 1e-3\n[[phases]]\nepochs = 1\n'
VOCABULARY = "\n".join(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "##b", "cat"])
PHOTOS = "file,label,split\n" + "".join(f"{n}.png,{'ab'[n % 2]},train\n" for n in range(4))
FLICKR = "image,caption\n" + "".join(f'{n}.png,"a cat, {n}"\n' for n in range(4))
SCORES = "map,pointing,pointing_chance,insertion\nrollout,0.5,0.2,0.6\n"


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    folder = tmp_path_factory.mktemp("whole")
    vit, captioner = folder / "vit.safetensors", folder / "captioner.safetensors"
    minivit.save_model(small_vit(), vit)
    minivit.save_model(minivit.load_model("scenes_captioner"), captioner)
    torch.save(dict(small_vit().state_dict()), folder / "vit.pth")
    np.savez(folder / "vit.npz", **{k: v.numpy() for k, v in small_vit().state_dict().items()})
    pictures = {
        "PNG": png(0), "JPEG": png(1, form="JPEG"), "GIF": png(2, "P", "GIF"),
        "TIFF": png(3, form="TIFF"), "WEBP": png(4, form="WEBP"), "BMP": png(5, form="BMP"),
        "PPM": png(6, form="PPM"), "ICO": png(7, form="ICO"), "a palette": png(8, "P"),
    }  # fmt: skip
    text = {
        "photos in a CSV file": Case(table("list.csv", PHOTOS), lambda p: read_photos(p, seed=0)),
        "captions in a CSV file": Case(table("c.csv", FLICKR), lambda p: read_captions(p, "train")),
        "captions of Flickr8k": Case(
            table("captions.txt", FLICKR), lambda path: read_captions(path, "train")
        ),
        "captions of COCO": Case(
            coco, lambda path: read_captions(path, "train", skip_missing=True)
        ),
        "names of classes": Case(names, read_class_names),
        "a vocabulary": Case(rewritten("vocab.txt", VOCABULARY.encode()), WordPiece.from_file),
        "a recipe": Case(rewritten("r.toml", RECIPE.encode()), lambda path: read_recipe(str(path))),
        "a table of scores": Case(rewritten("scores.csv", SCORES.encode()), read_scores),
        "IDX files": Case(idx, read_idx),
        "a mask": Case(rewritten("mask.png", png(9, "L")), read_mask),
    }
    images = {
        f"a picture, {form}": Case(
            rewritten(f"photo {form}", data), lambda path: (open_image(path), check_image(path))
        )
        for form, data in pictures.items()
    }
    models = {
        "a ViT that lies": Case(lying_checkpoint(vit), load_and_use),
        "a captioner that lies": Case(lying_checkpoint(captioner), load_and_use),
        "a timm export that lies": Case(lying_export(vit), convert),
        "a damaged checkpoint": Case(rewritten("d.safetensors", vit.read_bytes()), load_and_use),
        "a folder of the hub": Case(hub_folder, convert),
        "a damaged .pth": Case(
            rewritten("d.pth", (folder / "vit.pth").read_bytes()), convert_two_heads
        ),
        "a damaged .npz": Case(
            rewritten("d.npz", (folder / "vit.npz").read_bytes()), convert_two_heads
        ),
    }
    return models | text | images


# ---- the property --------------------------------------------------------------------------------


def one_input(case: Case, name: str, number: int, folder: Path) -> str:
    """Makes input `number` of a kind and reads it; gives "returns", or the kind of the refusal.

    Raises:
        AssertionError: It took too long, or was refused in another way than by a message.
    """
    path = case.make(folder, random.Random(f"{name} {number}"))
    try:
        with soon(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case.read(path)
    except (ValueError, OSError) as error:
        message = one_line(error)  # as a command shows it
        message.encode()
        is_meant = str(error).strip() and len(message.splitlines()) == 1 and len(message) < 2000
        is_meant = is_meant and not isinstance(error, UnicodeError)
        assert is_meant, f"{name}, input {number}: {type(error).__name__}: {error}"
        return type(error).__name__
    except TooLongError:
        raise AssertionError(f"{name}, input {number}: no end in {SECONDS_FOR_ONE} s") from None
    except Exception as error:
        raise AssertionError(f"{name}, input {number}: {type(error).__name__}: {error}") from error
    return "returns"


def run_for(cases: dict[str, Case], folder: Path, seconds: float) -> dict[str, Counter[str]]:
    """Inputs of all kinds in turn, until the time is over; outcomes by kind."""
    outcomes: dict[str, Counter[str]] = {name: Counter() for name in cases}
    folders = {name: folder / str(index) for index, name in enumerate(cases)}
    for each in folders.values():
        each.mkdir()
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end or number < 2:
        for name, case in cases.items():
            outcomes[name][one_input(case, name, number, folders[name])] += 1
        number += 1
    return outcomes


def test_every_reader_answers_or_refuses(cases: dict[str, Case], tmp_path: Path) -> None:
    outcomes = run_for(cases, tmp_path, 6)
    assert all(sum(counts.values()) >= 2 for counts in outcomes.values())


@pytest.mark.slow
def test_every_reader_answers_or_refuses_for_two_minutes(
    cases: dict[str, Case], tmp_path: Path
) -> None:
    outcomes = run_for(cases, tmp_path, 110)
    for name, counts in outcomes.items():  # a fuzz that is refused always, or never, tests little
        assert len(counts) >= 2, f"{name}: {counts}"
