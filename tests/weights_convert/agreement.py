"""How far a converted model may be from the code that its weights came from."""

from __future__ import annotations

import torch
from torch import Tensor

from minivit import VisionTransformer


def assert_agrees(model: VisionTransformer, pictures: Tensor, expected: dict[str, Tensor]) -> None:
    """Output and tokens to 1e-4, attention weights to 1e-5; only what is expected is compared.

    Args:
        model: The converted one.
        pictures: (B, 3, height, width).
        expected: "output": logits, or the class token's feature where there is no head; "tokens";
            "attention.{block}".
    """
    with torch.no_grad():
        output, attentions = model(pictures, return_attention=True)
        tokens = model.encode(pictures)
    if model.config.num_classes == 0 and model.config.representation_dim == 0:
        torch.testing.assert_close(tokens[:, 0], expected["output"], atol=1e-4, rtol=0)
    torch.testing.assert_close(output, expected["output"], atol=1e-4, rtol=0)
    if "tokens" in expected:
        torch.testing.assert_close(tokens, expected["tokens"], atol=1e-4, rtol=0)
    for index, weights in enumerate(attentions):
        if f"attention.{index}" in expected:
            torch.testing.assert_close(weights, expected[f"attention.{index}"], atol=1e-5, rtol=0)
