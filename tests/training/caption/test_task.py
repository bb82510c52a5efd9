"""Captioning as a task: what counts in the loss, and which weights move."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from minivit.captioner import Captioner
from minivit.config import ResNetConfig
from minivit.data.captions.dataset import CaptionBatch
from minivit.tokenizer import WordLevel
from minivit.training.caption.data import CaptionedImages, EncodedImages
from minivit.training.caption.task import CaptionTask, caption_loss
from minivit.training.evaluation import evaluate
from minivit.training.loop import Trainer
from minivit.training.optimizers import make_optimizers
from minivit.training.recipes import CaptionRecipe, make_recipe
from minivit.training.settings import Settings, lr_fraction
from minivit.training.task import Epoch, Piece
from tests.test_captioner import WORDS, make_captioner
from tests.training.tasks import ALONE, run

SETTINGS = Settings(epochs=1, batch_size=4, lr=1e-3, grad_clip=1.0)
PAD = WordLevel(WORDS).pad_id


def samples(number: int = 12) -> CaptionedImages:
    """Noise, 2:3, with captions of 2, 4 or 6 tokens after the start."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (number, 3, 32, 48), dtype=torch.uint8, generator=generator)
    tokens = torch.randint(4, 12, (number, 7), generator=generator)
    tokens[:, 0], tokens[0::3, 5:], tokens[1::3, 3:] = 1, PAD, PAD
    return CaptionedImages(images, tokens[:, None], PAD)


def one_batch(data: CaptionedImages) -> CaptionBatch:
    return next(data.load(0, [Piece(0, list(range(len(data))))]))


def train(captioner: Captioner, backbone_lr: float, **changes: Any) -> Trainer:
    task, data = CaptionTask(captioner, backbone_lr=backbone_lr), samples()
    settings = dataclasses.replace(SETTINGS, **changes)
    return Trainer(task, data, data, [settings], processes=ALONE)


# ---- the loss ------------------------------------------------------------------------------------


def test_padding_counts_for_nothing() -> None:
    logits, targets = torch.randn(2, 5, 12), torch.randint(4, 12, (2, 5))
    targets[0, 2:] = PAD
    expected = F.cross_entropy(
        torch.cat([logits[0, :2], logits[1]]), torch.cat([targets[0, :2], targets[1]])
    )
    torch.testing.assert_close(caption_loss(logits, targets, PAD) / 7, expected)
    changed = logits.clone()
    changed[0, 2:] = 50.0
    torch.testing.assert_close(caption_loss(changed, targets, PAD) / 7, expected)


def test_label_smoothing_is_torchs() -> None:
    logits, targets = torch.randn(2, 5, 12), torch.randint(4, 12, (2, 5))
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), label_smoothing=0.1)
    torch.testing.assert_close(caption_loss(logits, targets, PAD, 0.1) / 10, expected)


def test_every_word_is_asked_given_the_true_ones_before_it() -> None:
    """As one caption after the other, word by word: the end is asked for, the start is not."""
    captioner = make_captioner(dropout=0.0)
    task, batch = CaptionTask(captioner).eval(), one_batch(samples(3))
    images = captioner.preprocess.normalize(batch.images)
    total, right, words = 0.0, 0, 0
    with torch.no_grad():
        for image, tokens in zip(images, batch.tokens, strict=True):
            known = tokens[tokens != PAD]
            for at in range(1, len(known)):
                scores = captioner(image[None], known[None, :at])[0, -1].log_softmax(dim=-1)
                total -= scores[known[at]].item()
                right += int(scores.argmax() == known[at])
                words += 1
        loss, reported = task(batch, SETTINGS).tolist()
        measured = task.measure(captioner, batch)
    assert task.count(batch) == words == 4 + 2 + 6
    assert loss == reported == pytest.approx(total, rel=1e-5)
    assert measured.dtype == torch.float64
    assert measured.tolist() == [pytest.approx(total, rel=1e-5), right, words]


def test_smoothing_is_for_learning_and_not_for_judging() -> None:
    captioner = make_captioner(dropout=0.0)
    task, batch = CaptionTask(captioner).eval(), one_batch(samples(4))
    smoothed = dataclasses.replace(SETTINGS, label_smoothing=0.2)
    plain, more = task(batch, SETTINGS)[0], task(batch, smoothed)[0]
    logits, targets = captioner(
        captioner.preprocess.normalize(batch.images), batch.tokens[:, :-1]
    ), batch.tokens[:, 1:]  # fmt: skip
    torch.testing.assert_close(more, caption_loss(logits, targets, PAD, 0.2))
    assert more != plain
    assert task.measure(captioner, batch)[0].item() == pytest.approx(plain.item())


def test_evaluation_counts_every_word_once() -> None:
    """The same figures, however the captions lie in batches; it does not know of dropout."""
    captioner, data = make_captioner(dropout=0.3), samples(7)
    task = CaptionTask(captioner).train()
    whole = evaluate(task, captioner, data, processes=ALONE)
    for size in (1, 3):
        again = evaluate(task, captioner, data, processes=ALONE, batch_size=size)
        assert again == pytest.approx(whole, rel=1e-5)


def test_padded_pictures_are_masked() -> None:
    """Padding of a batch reaches the captioner as a mask; without padding there is none."""
    captioner = make_captioner(backbone=ResNetConfig(depth=50, dilate_last_stage=True))
    task = CaptionTask(captioner).eval()
    images, mask = torch.zeros(1, 3, 48, 64), torch.zeros(1, 48, 64, dtype=torch.bool)
    images[..., :32] = torch.randn(1, 3, 48, 32)
    mask[..., :32] = True
    tokens = torch.randint(4, 12, (1, 6))

    @torch.no_grad()
    def loss(mask: torch.Tensor | None) -> float:
        batch = CaptionBatch(images, mask, tokens)
        found = task(batch, SETTINGS)[0].item()
        assert task.measure(captioner, batch)[0].item() == pytest.approx(found)
        return found

    assert loss(mask) != loss(None)
    assert loss(torch.ones_like(mask)) == loss(None)


def test_each_epoch_has_the_next_caption_of_a_picture() -> None:
    data = samples(4)
    two = torch.stack([data.tokens[:, 0], data.tokens.flip(0)[:, 0]], dim=1)
    data = dataclasses.replace(data, tokens=two)
    for epoch, first in enumerate([0, 3, 0]):
        (batch,) = data.load(epoch, [Piece(0, [0])])
        caption = two[first, 0][two[first, 0] != PAD]
        assert torch.equal(batch.tokens[0], caption)


# ---- a backbone that stays -----------------------------------------------------------------------


def test_pictures_go_through_a_backbone_that_stays_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In whatever batches they come; it computes in eval mode and is left in its own."""
    captioner = make_captioner().train()
    encoded, seen = EncodedImages(samples(6), captioner), []
    encode = captioner.backbone_grid

    def watched(images: torch.Tensor) -> torch.Tensor:
        assert not captioner.backbone.training
        seen.append(len(images))
        return encode(images)

    monkeypatch.setattr(captioner, "backbone_grid", watched)
    grids = {}
    for epoch, batches in enumerate(([[5, 0], [2]], [[0, 1, 2], [5, 4, 3]], [[3, 2, 1, 0]])):
        pieces = [Piece(number, indices) for number, indices in enumerate(batches)]
        for piece, batch in zip(pieces, encoded.load(epoch, pieces), strict=True):
            for index, grid in zip(piece.indices, batch.grid, strict=True):
                torch.testing.assert_close(grid, grids.setdefault(index, grid), rtol=0, atol=0)
    assert sum(seen) == len(grids) == 6
    assert captioner.backbone.training
    captioner.eval()
    pictures = captioner.preprocess.normalize(samples(6).images)
    with torch.no_grad():
        expected = encode(pictures)
    whole = torch.stack([grids[index] for index in range(6)])
    assert whole.dtype == torch.float16
    torch.testing.assert_close(whole.float(), expected, rtol=1e-3, atol=1e-4)


def test_encoded_pictures_have_the_loss_of_pictures() -> None:
    captioner = make_captioner(dropout=0.0)
    task, data = CaptionTask(captioner).eval(), samples(6)
    with torch.no_grad():
        plain = task(one_batch(data), SETTINGS)
        (batch,) = EncodedImages(data, captioner).load(0, [Piece(0, list(range(6)))])
        torch.testing.assert_close(task(batch, SETTINGS), plain, rtol=1e-4, atol=0)
        torch.testing.assert_close(
            task.measure(captioner, batch)[0], plain[0].double(), rtol=1e-4, atol=0
        )
        batch.grid[0] += 1.0
        assert task(batch, SETTINGS)[0] != pytest.approx(plain[0].item(), rel=1e-4)


# ---- steps ---------------------------------------------------------------------------------------


def test_a_captioner_learns_its_captions() -> None:
    torch.manual_seed(0)
    trained = train(make_captioner(dropout=0.0), 1e-3, epochs=25, lr=3e-3)
    epochs = run(trained)
    assert epochs[-1].train_loss < 0.4 * epochs[0].train_loss
    assert epochs[-1].val_accuracy > 0.8 > epochs[0].val_accuracy


def test_the_best_epoch_is_that_of_the_lowest_loss() -> None:
    """Whatever the accuracy, which counts for classifiers."""
    trained = train(make_captioner(), 0.0)
    bests = []
    for number, (loss, accuracy) in enumerate([(2.0, 0.1), (3.0, 0.9), (1.5, 0.1)], start=1):
        trained.epochs.append(Epoch(number, 0.1, 1.0, loss, accuracy, 1.0))
        bests.append(trained.is_best())
    assert bests == [True, False, True]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_backbone_without_a_rate_stays(optimizer: str) -> None:
    """Bit by bit, and it is not asked for a gradient: half of the time is saved."""
    captioner = make_captioner()
    before = {name: tensor.clone() for name, tensor in captioner.state_dict().items()}
    trained = train(captioner, 0.0, optimizer=optimizer)
    names = {name for name, each in captioner.named_parameters() if each.requires_grad}
    assert names and not any(name.startswith("backbone.") for name in names)
    run(trained)
    for name, tensor in captioner.state_dict().items():
        assert torch.equal(tensor, before[name]) == name.startswith("backbone."), name


def test_a_backbone_with_a_rate_moves_at_it() -> None:
    """In phases of different rates it keeps its own."""
    captioner = make_captioner()
    task = CaptionTask(captioner, backbone_lr=2e-4)
    for lr in (1e-3, 1e-5):
        settings = dataclasses.replace(SETTINGS, lr=lr)
        optimizers = make_optimizers(task, settings, partial(task.lr_scale, settings=settings))
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            backbone = {id(each) for each in captioner.backbone.parameters()}
            inside = {id(each) in backbone for each in group["params"]}
            assert inside in ({True}, {False})
            assert group["highest_lr"] == pytest.approx(2e-4 if inside == {True} else lr)


@pytest.mark.parametrize("chosen", [True, False])
def test_a_backbone_keeps_or_computes_again_as_the_settings_say(chosen: bool) -> None:
    trained = train(make_captioner(), 1e-3, gradient_checkpointing=chosen)
    assert isinstance(trained.task.model, Captioner)
    assert trained.task.model.backbone.gradient_checkpointing == chosen


def test_a_backbone_that_stays_has_no_dropout() -> None:
    for backbone_lr in (0.0, 1e-4):
        captioner = make_captioner()
        CaptionTask(captioner, backbone_lr=backbone_lr).set_mode(SETTINGS)
        modes = {module.training for module in captioner.backbone.modules()}
        assert modes == {backbone_lr > 0}
        assert all(module.training for module in captioner.decoder.modules())


def test_parts_of_a_step_add_up_to_it_though_their_captions_are_of_different_length() -> None:
    whole, parts = (
        train(make_captioner(dropout=0.0), 1e-2, epochs=2, optimizer="sgd", lr=0.1, batch_size=5,
              accumulate=number)
        for number in (1, 3)
    )  # fmt: skip
    first, second = run(whole), run(parts)
    for one, other in zip(whole.task.parameters(), parts.task.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-6)
    assert [e.train_loss for e in second] == pytest.approx([e.train_loss for e in first], rel=1e-5)


def test_rates_of_catr() -> None:
    """AdamW, backbone at a tenth, its stem and first stage never; a tenth of all after lr_drop."""
    captioner = make_captioner(backbone=ResNetConfig(depth=50))
    recipe = make_recipe(CaptionRecipe, "catr_coco")
    (settings,) = recipe.settings_of_phases()
    task = CaptionTask(captioner, backbone_lr=recipe.backbone_lr)
    (optimizer,) = make_optimizers(task, settings, partial(task.lr_scale, settings=settings))
    rest, backbone = sorted(optimizer.param_groups, key=lambda group: -group["lr"])
    assert (rest["lr"], backbone["lr"]) == (pytest.approx(1e-4), pytest.approx(1e-5))
    assert rest["weight_decay"] == backbone["weight_decay"] == 1e-4  # norms and biases too
    moving = {name for name, each in captioner.named_parameters() if each.requires_grad}
    assert "backbone.conv1.weight" not in moving and "backbone.layer2.0.conv1.weight" in moving
    assert not any(name.startswith("backbone.layer1") for name in moving)
    assert {"head.2.bias", "encoder.0.norm1.weight", "pos_embed"} <= moving
    assert len(rest["params"]) + len(backbone["params"]) == len(moving)
    shares = [lr_fraction(epoch * 10, 10, settings) for epoch in (0, 19, 20, 29)]
    assert shares == pytest.approx([1, 1, 0.1, 0.1])


# ---- samples -------------------------------------------------------------------------------------
