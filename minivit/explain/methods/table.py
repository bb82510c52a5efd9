"""All methods of explanation, by name.

A method is a function `(model, images, target=None, **options) -> maps (B, rows, cols)`: how much
each patch matters, for pictures of any size. The visualisation commands, the scores, the explorer
and the lessons walk through this table, so that a new method is one module and one line here.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from minivit.explain.conditions import Target
from minivit.explain.methods.attended import attention
from minivit.explain.methods.attention_gradient import attention_gradient
from minivit.explain.methods.baselines import centre, edges, random
from minivit.explain.methods.class_similarity import class_similarity
from minivit.explain.methods.input_gradient import input_gradient
from minivit.explain.methods.integrated_gradients import integrate, integrated_gradients
from minivit.explain.methods.legrad import legrad
from minivit.explain.methods.occlusion import occlusion
from minivit.explain.methods.principal_component import principal_component
from minivit.explain.methods.relevance import relevance
from minivit.explain.methods.rolled_row import rolled_row
from minivit.explain.methods.smooth_gradient import smooth_gradient
from minivit.explain.methods.value_norm import value_norm
from minivit.vit import VisionTransformer


class Method(Protocol):
    """A function that makes maps of pictures."""

    def __call__(
        self, model: VisionTransformer, images: Tensor, target: Target = None, **options: Any
    ) -> Tensor:
        """Maps (B, rows, cols).

        Args:
            model: Any loaded Vision Transformer.
            images: (B, C, height, width), as `model.preprocess` makes them.
            target: The class to explain; methods that know no classes do not look at it.
            options: The method's own, keyword-only, all with defaults.
        """


METHODS: dict[str, Any] = {
    "attention": attention,
    "rollout": rolled_row,
    "relevance": relevance,
    "attention_gradient": attention_gradient,
    "legrad": legrad,
    "value_norm": value_norm,
    "class_similarity": class_similarity,
    "principal_component": principal_component,
    "input_gradient": input_gradient,
    "smooth_gradient": smooth_gradient,
    "integrated_gradients": integrated_gradients,
    "occlusion": occlusion,
    "random": random,
    "centre": centre,
    "edges": edges,
}
"""Name and function of each method; see `Method`."""

FOR_A_CLASS = frozenset(
    {
        "relevance",
        "attention_gradient",
        "legrad",
        "input_gradient",
        "smooth_gradient",
        "integrated_gradients",
        "occlusion",
    }
)
"""Names of the methods that look at the target; the maps of others are the same for every class."""

SIGNED = frozenset({"class_similarity", "principal_component", "occlusion"})
"""Names of the methods whose maps have values below 0 that mean the opposite of those above."""

COMPLETE: dict[str, Any] = {"integrated_gradients": integrate}
"""Methods whose parts promise to sum to a difference of logits; the function takes the arguments of
the method and returns the difference and the error of the sum beside the maps, see `Integral`."""
