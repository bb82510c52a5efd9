"""weights_convert on ViT-B/16: time beside reading and writing the file once, and peak memory.

    python -m benchmarks.convert_speed

Random weights are written in each source's own file format and names (the reverse of the
converter's tables). Each conversion runs in a process of its own, so that its peak memory is its
own; there it takes turns with a plain read and a plain write of as many bytes.

Time is the median ratio over the turns. Peak is how much the process grew beyond what it was after
its imports, as a multiple of the file: pages of a mapped file count, although the system may take
them back.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from minivit import VisionTransformer, ViTConfig
from weights_convert.formats import hugging_face, lukemelas, torchvision
from weights_convert.key_tables import KeyTable

TURNS = 9
DIM = 768


def renamed(weights: dict[str, Tensor], table: KeyTable) -> dict[str, Tensor]:
    """minivit's names to a source's: its table read from right to left, first line first."""
    lines: dict[str, str] = {}
    for theirs, ours in table.items():
        if ours is not None and not ours.endswith((":gate", ":up")):
            lines.setdefault(ours, theirs)
    for general in [ours for ours in lines if "{part}" in ours]:  # before a line for a weight alone
        lines.pop(general.replace("{part}", "weight"), None)
    found = {}
    for name, tensor in weights.items():
        index = name.split(".")[1] if name.startswith("blocks.") else ""
        part = name.split(".")[-1]
        for ours, theirs in lines.items():
            plain, _, third = ours.partition(":")
            if plain.format(i=index, part=part, rest="") == name:
                piece = tensor.chunk(3)["qkv".index(third)] if third else tensor
                found.setdefault(theirs.format(i=index, part=part), piece.clone())
    return found


def flax(weights: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """As Google publishes them."""
    arrays = {
        "cls": weights["cls_token"],
        "embedding/kernel": weights["patch_embed.proj.weight"].permute(2, 3, 1, 0),
        "embedding/bias": weights["patch_embed.proj.bias"],
        "Transformer/posembed_input/pos_embedding": weights["pos_embed"],
        "Transformer/encoder_norm/scale": weights["norm.weight"],
        "Transformer/encoder_norm/bias": weights["norm.bias"],
        "head/kernel": weights["head.weight"].T,
        "head/bias": weights["head.bias"],
    }
    for i in range(12):
        block, ours = f"Transformer/encoderblock_{i}", f"blocks.{i}"
        for theirs, norm in (("LayerNorm_0", "norm1"), ("LayerNorm_2", "norm2")):
            arrays[f"{block}/{theirs}/scale"] = weights[f"{ours}.{norm}.weight"]
            arrays[f"{block}/{theirs}/bias"] = weights[f"{ours}.{norm}.bias"]
        attention = f"{block}/MultiHeadDotProductAttention_1"
        kernels = weights[f"{ours}.attn.qkv.weight"].chunk(3)
        biases = weights[f"{ours}.attn.qkv.bias"].chunk(3)
        for name, kernel, bias in zip(("query", "key", "value"), kernels, biases, strict=True):
            arrays[f"{attention}/{name}/kernel"] = kernel.T.reshape(DIM, 12, 64)
            arrays[f"{attention}/{name}/bias"] = bias.reshape(12, 64)
        out = weights[f"{ours}.attn.proj.weight"].T.reshape(12, 64, DIM)
        arrays[f"{attention}/out/kernel"] = out
        arrays[f"{attention}/out/bias"] = weights[f"{ours}.attn.proj.bias"]
        for index, layer in enumerate(("fc1", "fc2")):
            dense = f"{block}/MlpBlock_3/Dense_{index}"
            arrays[f"{dense}/kernel"] = weights[f"{ours}.mlp.{layer}.weight"].T
            arrays[f"{dense}/bias"] = weights[f"{ours}.mlp.{layer}.bias"]
    return {name: tensor.contiguous().numpy() for name, tensor in arrays.items()}


def write_sources(folder: Path) -> list[Path]:
    """One file a source."""
    torch.manual_seed(0)
    model = VisionTransformer(ViTConfig.from_name("vit_base_patch16_224"))
    weights = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "vit_base_patch16_224.safetensors")
    torch.save(weights, folder / "vit_base_patch16_224.pth")
    torch.save(
        weights,
        folder / "vit_base_patch16_224_old.pth",
        _use_new_zipfile_serialization=False,
    )
    torch.save(renamed(weights, torchvision.KEYS), folder / "vit_b_16-c867db91.pth")
    torch.save(renamed(weights, lukemelas.KEYS), folder / "B_16_imagenet1k.pth")
    save_file(renamed(weights, hugging_face.KEYS), folder / "hugging_face.safetensors")
    np.savez(folder / "ViT-B_16.npz", **flax(weights))
    return sorted(folder.iterdir())


def peak_memory() -> int:
    """Most bytes of memory that this process has had, by Linux's own account."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])


def measure(path: Path) -> None:
    """Prints the figures of one file as JSON; runs in a process of its own."""
    from weights_convert import convert

    output, copy = path.with_name("out.safetensors"), path.with_name("copy")
    size = path.stat().st_size
    start = peak_memory()
    convert(path, output)
    peak = (peak_memory() - start) / size
    ratios, seconds = [], []
    for _ in range(TURNS):
        begin = time.perf_counter()
        content = path.read_bytes()
        with copy.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        del content
        middle = time.perf_counter()
        convert(path, output)
        seconds.append(time.perf_counter() - middle)
        ratios.append(seconds[-1] / (middle - begin))
    print(
        json.dumps(
            {
                "seconds": statistics.median(seconds),
                "ratio": statistics.median(ratios),
                "peak": peak,
                "size": size,
            }
        )
    )


def main() -> None:
    """Prints one line a source."""
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'file':34} {'MB':>5} {'seconds':>8} {'/ read and write':>17} {'peak / file':>12}")
        for path in write_sources(Path(folder)):
            result = subprocess.run(
                [sys.executable, "-m", "benchmarks.convert_speed", str(path)],
                capture_output=True,
                text=True,
                check=True,
            )
            found = json.loads(result.stdout)
            print(
                f"{path.name:34} {found['size'] / 1e6:5.0f} {found['seconds']:8.2f} "
                f"{found['ratio']:17.2f} {found['peak']:12.2f}"
            )


if __name__ == "__main__":
    measure(Path(sys.argv[1])) if len(sys.argv) > 1 else main()
