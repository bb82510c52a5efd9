"""What CATR makes of two pictures: catr.safetensors.

CATR is a captioner that is not a package: https://github.com/saahiluppal/catr, here at commit
fac82f9b4004b1dd39ccf89760b758ad19a2dbee. In an environment with the `parity` extra, from the top of
this repository::

    git clone https://github.com/saahiluppal/catr ../catr
    git -C ../catr checkout fac82f9b4004b1dd39ccf89760b758ad19a2dbee
    python -m tests.references.make_catr ../catr

Its code runs as it is, `predict.py` included; what has gone from today's libraries, or needs a
network, is replaced from outside (`load_catr`, `predict`). The model is the full one: ResNet-101
with a dilated last stage, 6 + 6 layers, 30,522 word-pieces. Neither its weights, which are seeded,
nor the pictures are stored, and of large tensors only a `sample` (all in `catr_inputs.py`).

Keys begin with the picture's name, or with `padded` for the two in one batch as in training.

    image                the picture as `predict.py` gives it to the model, (3, height, width)
    layer1 … layer4      what each stage of the ResNet makes, (C, rows, cols)
    position             sine position embeddings, (D, rows, cols)
    memory               the encoder's output, (rows·cols, D); zero where there is padding
    logits, statistics   (positions, sampled words) and (positions, 5): mean, standard deviation,
                         smallest, largest, log of the sum of exponentials, at the `POSITIONS` of
                         the caption `ROWS[name]`
    tokens               word-pieces that `predict.py` chose, start token first, (1 + STEPS)
    best, margins        the best logit of each step and how far the second is below it, (STEPS)
    cross_attention      last decoder layer, mean over heads, the row that chose each token,
                         (STEPS, rows·cols); in `padded` the `POSITIONS` of the caption
    cross_attention.{i}  the same for step i with its heads, (H, rows·cols)
    self_attention       decoder layer `SELF_LAYER` at the last step, (H, STEPS, STEPS)
    ignored              the padding mask on the grid, 1 = padding, (rows, cols)
    loss                 as in training: cross-entropy over all 128 places, padding included
"""

from __future__ import annotations

import contextlib
import io
import json
import runpy
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.references.catr_inputs import (
    END,
    HEAD_STEPS,
    LENGTH,
    PICTURES,
    POSITIONS,
    SEED,
    SELF_LAYER,
    START,
    STEPS,
    caption_row,
    catr_weights,
    picture,
    sample,
    statistics,
)
from tests.references.seeded import described, fingerprint

REPOSITORY = "https://github.com/saahiluppal/catr"
COMMIT = "fac82f9b4004b1dd39ccf89760b758ad19a2dbee"
SOURCES = "4271d7de"  # checksum of the commit's Python files
FOLDER = Path(__file__).parent


def load_catr(path: str) -> SimpleNamespace:
    """CATR's modules from a checkout, made to run on today's libraries."""
    import transformers  # first: it would take CATR's `datasets` for a library of that name

    total = 0
    for file in sorted(Path(path).rglob("*.py")):
        total = zlib.crc32(file.read_bytes(), total)
    if f"{total:08x}" != SOURCES:
        raise SystemExit(f"{path} is not CATR at commit {COMMIT}: check that commit out")
    sys.path.insert(0, path)
    np.float = float  # gone from numpy
    from configuration import Config
    from datasets import coco
    from datasets import utils as dataset_utils
    from models import backbone, caption, utils

    backbone.is_main_process = lambda: False  # it asks for ImageNet weights to be downloaded
    return SimpleNamespace(
        path=path,
        transformers=transformers,
        config=Config(),
        coco=coco,
        dataset_utils=dataset_utils,
        caption=caption,
        utils=utils,
    )


@contextlib.contextmanager
def watch(model: nn.Module) -> Iterator[dict[str, Any]]:
    """A dictionary that every forward pass fills with what is stored of its inside."""
    found: dict[str, Any] = {}
    handles = []

    def keep(name: str, module: nn.Module) -> None:
        handles.append(
            module.register_forward_hook(
                lambda _module, _inputs, output: found.__setitem__(name, output)
            )
        )

    def by_head(_module: nn.Module, inputs: Any, options: dict[str, Any]) -> Any:
        return inputs, options | {"average_attn_weights": False}

    joiner, transformer = model.backbone, model.transformer
    for stage in range(1, 5):
        keep(f"layer{stage}", joiner[0].body[f"layer{stage}"])
    keep("grid", joiner[0])
    keep("position", joiner[1])
    keep("memory", transformer.encoder)
    attentions = {
        "cross": transformer.decoder.layers[-1].multihead_attn,
        "self": transformer.decoder.layers[SELF_LAYER].self_attn,
    }
    for name, module in attentions.items():
        handles.append(module.register_forward_pre_hook(by_head, with_kwargs=True))
        keep(name, module)
    yield found
    for handle in handles:
        handle.remove()


class Chosen:
    """Stands in for the model in `predict.py`: notes each step, and after `STEPS` says END."""

    def __init__(self, model: nn.Module, found: dict[str, Any]) -> None:
        self.model, self.found = model, found
        self.logits: list[Tensor] = []
        self.cross: list[Tensor] = []

    def eval(self) -> None:
        self.model.eval()

    def __call__(self, image: Tensor, caption: Tensor, cap_mask: Tensor) -> Tensor:
        step = len(self.logits)
        if step == STEPS:
            return torch.eye(END + 1)[END].expand(1, LENGTH, -1)
        predictions = self.model(image, caption, cap_mask)
        self.logits.append(predictions[0, step])
        self.cross.append(self.found["cross"][1][0, :, step])
        return predictions


def predict(catr: SimpleNamespace, model: Any, photo: Image.Image) -> dict[str, Any]:
    """Runs CATR's `predict.py` on a picture; the names that it leaves behind."""
    tokenizer = SimpleNamespace(
        _cls_token=START,
        _sep_token=END,
        convert_tokens_to_ids=lambda token: token,
        decode=lambda _tokens, skip_special_tokens: "",
    )
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        file = f"{folder}/picture.png"
        photo.save(file)
        stack.enter_context(mock.patch.object(sys, "argv", ["predict.py", "--path", file]))
        stack.enter_context(mock.patch.object(torch.hub, "load", lambda *_, **__: model))
        tokenizers = catr.transformers.BertTokenizer
        stack.enter_context(mock.patch.object(tokenizers, "from_pretrained", lambda _: tokenizer))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        return runpy.run_path(f"{catr.path}/predict.py")


def alone(catr: SimpleNamespace, model: nn.Module, name: str) -> tuple[Tensor, dict[str, Tensor]]:
    """One picture, in `predict.py` and with the caption of `ROWS`: the input, and what to store."""
    with watch(model) as found:
        chosen = Chosen(model, found)
        left = predict(catr, chosen, picture(name))
        image = left["image"]
        large = {f"layer{stage}": found[f"layer{stage}"][0] for stage in range(1, 5)}
        large |= {"image": image[0], "position": found["position"][0]}
        large["memory"] = found["memory"][:, 0]  # (N, B, D) -> (N, D)
        itself = found["self"][1][0, :, :STEPS, :STEPS]
        row = model(image, *caption_row(name))[0, list(POSITIONS)]
    best = torch.stack(chosen.logits).topk(2).values
    cross = torch.stack(chosen.cross)  # (STEPS, H, N)
    tensors = {key: sample(tensor) for key, tensor in large.items()} | {
        "logits": torch.stack([sample(logits) for logits in row]),
        "statistics": statistics(row),
        "tokens": left["output"][0, : 1 + STEPS],
        "best": best[:, 0],
        "margins": best[:, 0] - best[:, 1],
        "cross_attention": cross.mean(1),
        "self_attention": itself,
    }
    return image[0], tensors | {f"cross_attention.{step}": cross[step] for step in HEAD_STEPS}


def padded(
    catr: SimpleNamespace, model: nn.Module, images: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The pictures in one batch, padded to 299 x 299 as in training, with their captions."""
    nested = [catr.dataset_utils.nested_tensor_from_tensor_list([x]) for x in images.values()]
    batch = catr.utils.NestedTensor(
        torch.cat([one.tensors for one in nested]), torch.cat([one.mask for one in nested])
    )
    rows = [caption_row(name, training=True) for name in images]
    captions = torch.cat([tokens for tokens, _ in rows])
    masks = torch.cat([mask for _, mask in rows])
    with watch(model) as found:
        logits = model(batch, captions[:, :-1], masks[:, :-1])
    loss = nn.CrossEntropyLoss()(logits.permute(0, 2, 1), captions[:, 1:])
    ignored = found["grid"]["0"].mask  # (B, rows, cols)
    memory = found["memory"].transpose(0, 1)  # (N, B, D) -> (B, N, D)
    memory = memory.masked_fill(ignored.flatten(1)[:, :, None], 0.0)
    cross = found["cross"][1].mean(1)[:, list(POSITIONS)]
    tensors = {"padded.loss": loss}
    for index, name in enumerate(images):
        row = logits[index, list(POSITIONS)]
        tensors |= {
            f"padded.{name}.ignored": ignored[index].to(torch.uint8),
            f"padded.{name}.layer4": sample(found["layer4"][index]),
            f"padded.{name}.position": sample(found["position"][index]),
            f"padded.{name}.memory": sample(memory[index]),
            f"padded.{name}.logits": torch.stack([sample(logits) for logits in row]),
            f"padded.{name}.statistics": statistics(row),
            f"padded.{name}.cross_attention": cross[index],
        }
    return tensors


@torch.no_grad()
def make(path: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of the file, from the checkout at `path`."""
    catr = load_catr(path)
    model, _ = catr.caption.build_model(catr.config)
    weights = catr_weights({name: t.shape for name, t in model.state_dict().items()}, SEED)
    model.load_state_dict(weights)
    images, tensors = {}, {}
    for name in PICTURES:
        images[name], found = alone(catr, model, name)
        tensors |= {f"{name}.{key}": tensor for key, tensor in found.items()}
    tensors |= padded(catr, model, images)
    pixels = {name: torch.from_numpy(np.array(picture(name))) for name in PICTURES}
    packages = ("torch", "torchvision", "transformers", "numpy", "pillow")
    metadata = described(weights, SEED, {}) | {
        "pictures": fingerprint(pixels),
        "repository": REPOSITORY,
        "commit": COMMIT,
        "versions": json.dumps({name: version(name) for name in packages}),
        "made_by": "python -m tests.references.make_catr ../catr",
    }
    return {key: tensor.contiguous() for key, tensor in tensors.items()}, metadata


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m tests.references.make_catr CHECKOUT_OF_CATR")
    tensors, metadata = make(sys.argv[1])
    save_file(tensors, FOLDER / "catr.safetensors", metadata=metadata)
