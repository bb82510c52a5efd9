"""Image features, tokens and attention maps of small CLIP models: convert_open_clip*.safetensors.

    python -m tests.references.make_open_clip      (from the top of the repository)

Needs `pip install open_clip_torch==3.3.0`, which is

    https://github.com/mlfoundations/open_clip at 30573618fc375b12f094ef64cb3a1391cf611c45 (v3.3.0)

One file a model of `MODELS`. The weights are those of the whole model, picture and text, but only
the picture's side is run. They and the pictures are not stored: `seeded.py` makes them again from
their names. `output` is `encode_image`, not normalised; `tokens` are what `ln_post` gives.
Attention maps are what torch's attention layer returns when asked for the weights of each head.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.references.seeded import described, foreign_weights, seeded

SEED = 2021
FOLDER = Path(__file__).parent
BLOCKS = (0, 1)  # whose attention is stored
HEADS = 2
WIDTH = 32
PICTURES = (2, 3, 32, 48)  # (B, channels, height, width)
MODELS = {
    "open_clip": {"quick_gelu": False},
    "open_clip_quick": {"quick_gelu": True},  # what OpenAI's own weights need
}


def clip(**options: Any) -> CLIP:
    """A model whose picture side has 2 blocks and whose text side is as small as can be."""
    vision = CLIPVisionCfg(
        layers=2, width=WIDTH, head_width=WIDTH // HEADS, patch_size=8, image_size=PICTURES[2:]
    )
    text = CLIPTextCfg(context_length=8, vocab_size=16, width=16, heads=2, layers=1)
    return CLIP(embed_dim=24, vision_cfg=vision, text_cfg=text, **options)


def run(model: CLIP, pictures: Tensor) -> dict[str, Tensor]:
    """Output, tokens and attention maps."""
    found = {}

    def ask_for_weights(
        _module: nn.Module, inputs: tuple[Tensor, ...], options: dict[str, Any]
    ) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        return inputs, options | {"need_weights": True, "average_attn_weights": False}

    for index, block in enumerate(model.visual.transformer.resblocks):
        block.attn.register_forward_pre_hook(ask_for_weights, with_kwargs=True)
        block.attn.register_forward_hook(
            lambda _module, _inputs, output, index=index: found.__setitem__(index, output[1])
        )
    model.visual.ln_post.register_forward_hook(
        lambda _module, _inputs, output: found.__setitem__("tokens", output)
    )
    output = model.encode_image(pictures)
    maps = {f"attention.{index}": found[index] for index in BLOCKS}
    return {"output": output, "tokens": found["tokens"]} | maps


@torch.no_grad()
def make(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of one file."""
    model = clip(**MODELS[name]).eval()
    weights = foreign_weights({key: t.shape for key, t in model.state_dict().items()}, SEED)
    model.load_state_dict(weights)
    pictures = seeded("pictures", PICTURES, SEED)
    packages = ("open_clip_torch", "torch", "numpy")
    metadata = described(weights, SEED, {"pictures": pictures}) | {
        "num_heads": str(HEADS),
        "repository": "https://github.com/mlfoundations/open_clip",
        "commit": "30573618fc375b12f094ef64cb3a1391cf611c45",
        "versions": json.dumps({name: version(name) for name in packages}),
        "made_by": "python -m tests.references.make_open_clip",
    }
    tensors = run(model, pictures)
    return {key: tensor.contiguous() for key, tensor in tensors.items()}, metadata


if __name__ == "__main__":
    for name in MODELS:
        tensors, metadata = make(name)
        save_file(tensors, FOLDER / f"convert_{name}.safetensors", metadata=metadata)
