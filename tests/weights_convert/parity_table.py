"""The table of weights_convert/README.md: how far each source's own outputs are from minivit's.

    python -m tests.weights_convert.parity_table          prints it
    python -m tests.weights_convert.parity_table --write  puts it into the README

Each line is one stored reference, `tests/references/convert_*.safetensors` or `vit_*.safetensors`:
the weights in the source's own file format, converted, and the largest absolute difference of
outputs (logits, or features where there is no head) and of attention weights.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from minivit import VisionTransformer
from tests.catr import catr, references
from tests.references.catr_inputs import (
    PICTURES,
    POSITIONS,
    STEPS,
    caption_row,
    picture,
    sample,
)
from tests.references.seeded import seeded
from tests.weights_convert import test_formats
from weights_convert import convert

README = Path(__file__).parents[2] / "weights_convert" / "README.md"
BEGIN, END = "<!-- parity table: begin -->", "<!-- parity table: end -->"
HEADER = (
    "| source | case | outputs | attention |",
    "| --- | --- | --- | --- |",
)
SOURCES = {
    "dino": "DINO",
    "dinov2": "DINOv2",
    "hf": "transformers",
    "jax": "vision_transformer (Flax)",
    "lukemelas": "PyTorch-Pretrained-ViT",
    "open": "open_clip",
    "torchvision": "torchvision",
}


def differences(
    model: VisionTransformer, shown: dict[str, Tensor], expected: dict[str, Tensor]
) -> tuple[float, float]:
    """Largest absolute difference of outputs and of attention weights."""
    outputs, maps = [], []
    with torch.no_grad():
        for key, pictures in shown.items():
            logits, attentions = model(pictures, return_attention=True)
            outputs.append(logits - expected[key])
            if key == "output":
                maps = [
                    weights - expected[f"attention.{index}"]
                    for index, weights in enumerate(attentions)
                    if f"attention.{index}" in expected
                ]
    return max(d.abs().max().item() for d in outputs), max(d.abs().max().item() for d in maps)


def catr_differences() -> tuple[float, float]:
    """Logits of the words of two captions, and cross-attention of the last decoder block."""
    stored, _ = references()
    outputs, maps = [], []
    for name in PICTURES:
        photo = picture(name)
        caption = catr().caption([photo], max_length=STEPS + 1)[0]
        maps.append(caption.attention.flatten(1) - stored[f"{name}.cross_attention"])
        tokens, padding = caption_row(name)
        with torch.no_grad():
            memory = catr().encode_photos([photo])
            logits, _, _ = catr().decode(tokens, memory, token_mask=~padding)
        chosen = torch.stack([sample(row) for row in logits[0, list(POSITIONS)]])
        outputs.append(chosen - stored[f"{name}.logits"])
    return max(d.abs().max().item() for d in outputs), max(d.abs().max().item() for d in maps)


def rows() -> list[str]:
    """One line a case."""
    found = []
    for case in test_formats.TIMM:
        reference = test_formats.stored_timm(case)
        with tempfile.TemporaryDirectory() as folder:
            model = convert(reference.write(Path(folder)), **reference.hints).model
        shown = {"output": seeded("pictures", reference.shape, reference.seed)}
        found.append(("timm", case, *differences(model, shown, reference.tensors)))
    for case in test_formats.CASES:
        reference = test_formats.stored(case)
        with tempfile.TemporaryDirectory() as folder:
            path = test_formats.write(case, reference, Path(folder))
            model = convert(path, **test_formats.options(case, reference)).model
        shown = {"output": reference.pictures()}
        if "output_other" in reference.tensors:
            shown["output_other"] = reference.pictures("pictures_other")
        source = SOURCES[case.split("_")[0]]
        found.append((source, case, *differences(model, shown, reference.tensors)))
    found.append(("CATR", "catr", *catr_differences()))
    return [
        f"| {source} | `{case}` | {output:.0e} | {attention:.0e} |"
        for source, case, output, attention in found
    ]


if __name__ == "__main__":
    table = "\n".join((*HEADER, *rows()))
    if "--write" in sys.argv:
        before, _, rest = README.read_text("utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        README.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", "utf-8")
    else:
        print(table)
