"""The class or the word that --target names."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minivit.vit import VisionTransformer
    from minivit.word_maps import Caption


def class_number(model: VisionTransformer, text: str) -> int:
    """The number of the class that --target names, by its label or its number.

    A label that is a number goes before the number.

    Raises:
        ValueError: No head; no such class, or two of that label; names labels that are alike.
    """
    import torch

    from minivit.explain.conditions import class_numbers

    labels = model.labels or ()
    is_number = text.lstrip("-").isdecimal() and text not in labels
    any_logits = torch.zeros(1, model.config.num_classes)
    try:
        return int(class_numbers(model, int(text) if is_number else text, any_logits)[0])
    except ValueError as error:
        alike = [label for label in labels if text.lower() in label.lower()]
        alike = alike or difflib.get_close_matches(text, labels)
        names = ", ".join(repr(label) for label in alike[:5])
        hint = f"; alike: {names}" if alike and not is_number and text not in labels else ""
        raise ValueError(f"--target {text}: {error}{hint}") from None


def word_number(caption: Caption, text: str) -> int:
    """The place of the word that --target names, by itself or by its place.

    A word that is a number goes before the place; of equal words it is the first.

    Raises:
        ValueError: No such word.
    """
    words = [word.text for word in caption.words]
    if text in words:
        return words.index(text)
    if text.isdecimal() and int(text) < len(words):
        return int(text)
    places = f", or a place from 0 to {len(words) - 1}" if words else ""
    raise ValueError(
        f"--target {text}: the caption is {caption.text!r}: choose one of its words{places}"
    )
