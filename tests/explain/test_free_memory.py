"""Free memory is read from what Linux writes, and what does not fit is refused beforehand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from minivit.embeddings import PatchEmbedding
from minivit.explain import METHODS, attention_entropy, free_memory
from minivit.explain.methods import relevance
from minivit.explain.words import word_relevance
from tests.explain.test_words import make_captioner, make_tokens
from tests.explain.vits import make_images, make_model


def test_free_memory_is_what_linux_says_or_what_the_container_has_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cpu = torch.device("cpu")
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   3000 kB\nCached: 1 kB\n")
    monkeypatch.setattr(free_memory, "MEMORY_INFO", tmp_path / "meminfo")
    monkeypatch.setattr(free_memory, "GROUP", tmp_path)
    assert free_memory.free_memory(cpu) == 3000 * 1024
    (tmp_path / "memory.current").write_text("500\n")
    for limit, free in (("max\n", 3000 * 1024), ("2500\n", 2000), ("100\n", 0)):
        (tmp_path / "memory.max").write_text(limit)
        assert free_memory.free_memory(cpu) == free
    monkeypatch.setattr(free_memory, "MEMORY_INFO", tmp_path / "none")
    assert free_memory.free_memory(cpu) is None
    assert free_memory.free_memory(torch.device("meta")) is None


BEFORE_IT_IS_SPENT: dict[str, Callable[[], object]] = {
    "relevance of 2 pictures with keep='maps'": lambda: METHODS["relevance"](
        make_model(), make_images(), keep="maps"
    ),
    "relevance of 2 pictures with keep='inputs'": lambda: METHODS["relevance"](
        make_model(), make_images()
    ),
    "the attention of a block and its gradient": lambda: METHODS["legrad"](
        make_model(), make_images()
    ),
    "the attention of a block and its": lambda: METHODS["attention_gradient"](
        make_model(), make_images()
    ),
    "rollout": lambda: METHODS["rollout"](make_model(), make_images()),
    "the attention of a block": lambda: attention_entropy(make_model(), make_images()),
    "relevance of the words of 2 pictures": lambda: word_relevance(
        captioner := make_captioner(), make_images(), make_tokens(captioner)
    ),
}


@pytest.mark.parametrize("what", BEFORE_IT_IS_SPENT)
def test_what_does_not_fit_is_said_before_it_is_spent(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 9,000 bytes free, and with memory enough."""
    passes: list[Tensor] = []
    forward = PatchEmbedding.forward
    monkeypatch.setattr(
        PatchEmbedding,
        "forward",
        lambda self, images: passes.append(images) or forward(self, images),
    )

    def free(amount: int | None) -> None:
        for module in (free_memory, relevance):
            monkeypatch.setattr(module, "free_memory", lambda device: amount)

    free(9000)
    with pytest.raises(ValueError, match=f"{what}.* would take about .* MiB of memory") as caught:
        BEFORE_IT_IS_SPENT[what]()
    assert "and 0.00858 MiB are free: " in str(caught.value)
    assert "pictures at once" in str(caught.value) and "\n" not in str(caught.value)
    assert not passes
    for amount in (10**9, None):
        free(amount)
        BEFORE_IT_IS_SPENT[what]()
    assert passes
