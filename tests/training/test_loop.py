"""The loop: that it learns, what a step is, and that a saved state goes on bit by bit."""

from __future__ import annotations

import copy
import dataclasses
import io
import math
import shutil
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from minivit.training.classify.task import ClassificationTask
from minivit.training.evaluation import evaluate
from minivit.training.loop import NotFiniteError, Trainer
from minivit.training.settings import Settings, lr_fraction
from minivit.training.task import Piece, divide, epoch_order
from minivit.vit import VisionTransformer
from tests.training.tasks import (
    ALONE,
    SETTINGS,
    bright_side,
    run,
    small_model,
    trainer,
    weights,
)

FINE = dataclasses.replace(SETTINGS, optimizer="adamw", lr=1e-3, grad_clip=0.0)


def changed(**changes: Any) -> Settings:
    return dataclasses.replace(SETTINGS, **changes)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_learns_where_the_bright_patch_is(precision: str) -> None:
    losses: list[float] = []
    trained = Trainer(
        ClassificationTask(small_model(), num_patch_classes=2),
        bright_side(256, seed=3),
        bright_side(100, seed=4),
        [changed(epochs=16, lr=1e-2, precision=precision)],
        processes=ALONE,
        on_step=losses.append,
    )
    epochs = run(trained)
    assert [epoch.epoch for epoch in epochs] == list(range(1, 17))
    assert len(losses) == trained.num_steps == trained.step == 16 * 16
    assert epochs[-1].val_accuracy > 0.9  # six seeds gave 0.99 to 1.00
    assert epochs[-1].train_loss < epochs[0].train_loss
    again = evaluate(trained.task, trained.model, bright_side(100, seed=4), processes=ALONE)
    assert again == (epochs[-1].val_loss, epochs[-1].val_accuracy)


# ---- what a step is ------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_the_losses_are_those_of_a_loop_written_out(optimizer: str) -> None:
    """Same order, schedule and clipping, torch's own optimizer, the model called by hand."""
    settings = changed(
        optimizer=optimizer, lr=1e-2, weight_decay=0.1, decay_all=True, grad_clip=0.5
    )
    losses: list[float] = []
    trained = trainer(settings, patches=False, on_step=losses.append)
    model = copy.deepcopy(trained.task.model).train()
    run(trained)
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optimizer]
    more: dict[str, Any] = {"momentum": 0.9} if optimizer == "sgd" else {}
    plain = kind(model.parameters(), lr=1.0, weight_decay=0.1, **more)
    data, expected = bright_side(72, seed=1), []
    for epoch in range(3):
        order = epoch_order(0, epoch, 72)
        for step in range(5):
            chosen = order[16 * step : 16 * step + 16]
            plain.param_groups[0]["lr"] = 1e-2 * lr_fraction(5 * epoch + step, 5, settings)
            logits = model(model.preprocess.normalize(data.images[chosen]))
            loss = F.cross_entropy(logits, data.labels[chosen])
            plain.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            plain.step()
            expected.append(loss.item())
    assert losses == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("batch_size", [16, 50, 72])
def test_parts_of_a_step_add_up_to_it(batch_size: int) -> None:
    """Also where the last step has fewer samples than parts, and parts are of different size."""
    whole, parts = (
        trainer(changed(batch_size=batch_size, accumulate=number, optimizer="sgd", lr=0.1))
        for number in (1, 9)
    )
    first, second = run(whole), run(parts)
    torch.testing.assert_close(weights(parts), weights(whole), rtol=1e-4, atol=1e-6)
    assert [e.train_loss for e in second] == pytest.approx([e.train_loss for e in first], rel=1e-5)


def test_what_is_not_counted_changes_nothing() -> None:
    """A process without samples of its own must take part in the step, and add nothing to it."""
    plain, padded = trainer(FINE), trainer(FINE)
    data = bright_side(72, seed=1)
    batch = next(data.load(0, [Piece(0, [1, 2, 3])]))
    other = next(data.load(0, [Piece(0, [9])]))
    plain._run_step([(Piece(0, [1, 2, 3]), batch)])
    padded._run_step([(Piece(0, [1, 2, 3]), batch), (Piece(0, [9], counted=False), other)])
    torch.testing.assert_close(weights(padded), weights(plain), rtol=0, atol=1e-7)


def test_every_sample_is_seen_once_an_epoch_in_another_order_each_time() -> None:
    orders = [epoch_order(seed, epoch, 50) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert divide(range(7), 3) == [[0, 1], [2, 3], [4, 5, 6]]
    assert divide([5], 3) == [[], [], [5]]


def test_gradients_are_shortened_to_the_length_asked_for() -> None:
    """One step of plain SGD moves the weights by rate x length."""
    settings = changed(
        epochs=1,
        batch_size=72,
        optimizer="sgd",
        momentum=0.0,
        lr=1.0,
        grad_clip=1e-3,
        warmup_share=0.0,
    )
    trained = trainer(settings)
    before = weights(trained)
    run(trained)
    assert (weights(trained) - before).norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_checkpointed_gradients_are_the_same() -> None:
    plain, recomputed = trainer(SETTINGS), trainer(changed(gradient_checkpointing=True))
    for trained, chosen in ((plain, False), (recomputed, True)):
        assert isinstance(trained.task.model, VisionTransformer)
        assert trained.task.model.gradient_checkpointing == chosen
    run(plain)
    run(recomputed)
    assert torch.equal(weights(plain), weights(recomputed))


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_step_is_the_same() -> None:
    plain, compiled = (
        trainer(changed(epochs=1, optimizer="sgd", lr=0.1, grad_clip=0.0, compile=chosen))
        for chosen in (False, True)
    )
    run(plain)
    run(compiled)
    torch.testing.assert_close(weights(compiled), weights(plain), rtol=1e-4, atol=1e-6)


def test_the_moving_average_is_what_is_validated() -> None:
    trained = trainer(dataclasses.replace(FINE, epochs=2, ema_decay=0.9))
    assert trained.average is not None
    expected = [each.clone() for each in trained.average.parameters()]
    epochs = []
    for epoch in trained.run():
        epochs.append(epoch)
    # the same weights by hand: a run without an average passes through the same steps
    other = trainer(dataclasses.replace(FINE, epochs=2))

    def follow(_loss: float) -> None:
        decay = min(0.9, (1 + other.step) / (10 + other.step))
        for average, weight in zip(expected, other.task.model.parameters(), strict=True):
            average.mul_(decay).add_(weight.detach(), alpha=1 - decay)

    other.on_step = follow
    run(other)
    for found, average in zip(trained.average.parameters(), expected, strict=True):
        torch.testing.assert_close(found, average, rtol=1e-4, atol=1e-6)
    assert torch.equal(weights(trained), weights(other))
    loss, _ = evaluate(trained.task, trained.average, bright_side(37, seed=2), processes=ALONE)
    assert epochs[-1].val_loss == loss
    assert trained.model is trained.average


# ---- the end before the end ----------------------------------------------------------------------


def test_steps_end_the_training_within_an_epoch() -> None:
    """Five steps an epoch: the second epoch has two, and its figures are those of the two."""
    trained = trainer(changed(steps=7))
    rates: list[float] = []
    trained.on_step = lambda _: rates.append(trained.optimizers[0].param_groups[0]["lr"])
    epochs = run(trained)
    assert trained.step == trained.num_steps == len(rates) == 7
    assert [epoch.epoch for epoch in epochs] == [1, 2]
    expected = [lr_fraction(step, 5, changed(steps=7)) for step in range(7)]
    assert [rate / rates[0] for rate in rates] == pytest.approx([e / expected[0] for e in expected])
    assert epochs[1].lr == pytest.approx(SETTINGS.lr * expected[-1])


STEPS = (changed(steps=8, save_every=3), changed(steps=4, optimizer="sgd", save_every=3))


@pytest.mark.parametrize("last", range(1, 12))
def test_a_stopped_training_is_saved_as_it_is_and_goes_on_to_the_same_bits(last: int) -> None:
    """Two phases of 8 and 4 steps, stopped during each step."""

    def new(**more: Any) -> Trainer:
        return trainer(*STEPS, model=small_model(dropout=0.2), **more)

    whole = new()
    epochs = run(whole)
    saved: list[dict[str, Any]] = []
    stopped = new(save=lambda state: saved.append(copy.deepcopy(state)))
    stopped.on_step = lambda _: stopped.stop() if stopped.step == last else None
    finished = run(stopped)
    assert stopped.stopped and not whole.stopped and stopped.step == last
    ends = (5, 8, 12)  # of the epochs
    assert len(finished) == sum(end <= last for end in ends)
    before = weights(stopped)
    so_far = stopped.epochs_so_far()
    assert len(so_far) == len(finished) + (last not in ends)
    loss, _ = evaluate(stopped.task, stopped.model, stopped.validation, processes=ALONE)
    assert so_far[-1].val_loss == loss and math.isfinite(so_far[-1].train_loss)
    assert stopped.epochs == finished and torch.equal(weights(stopped), before)

    resumed = new()
    resumed.load_state(saved[-1])
    assert resumed.step == last
    run(resumed)
    assert torch.equal(weights(resumed), weights(whole)) and not resumed.stopped
    without_time = [dataclasses.replace(epoch, seconds=0) for epoch in resumed.epochs]
    assert without_time == [dataclasses.replace(epoch, seconds=0) for epoch in epochs]


def test_to_stop_in_the_last_step_is_to_end() -> None:
    trained = trainer(changed(epochs=1))
    trained.on_step = lambda _: trained.stop() if trained.step == 5 else None
    assert len(run(trained)) == 1 and not trained.stopped


# ---- phases --------------------------------------------------------------------------------------


def test_head_first_then_all() -> None:
    head = dataclasses.replace(FINE, epochs=2, trainable="head")
    trained = trainer(head, dataclasses.replace(FINE, epochs=1), patches=False)
    before = {name: value.clone() for name, value in trained.task.model.state_dict().items()}
    rates = []
    for epoch in trained.run():
        rates.append(epoch.lr)
        state = trained.task.model.state_dict()
        moved = {name for name in before if not torch.equal(before[name], state[name])}
        assert moved == ({"head.weight", "head.bias"} if epoch.epoch <= 2 else set(before))
    assert [epoch.epoch for epoch in trained.epochs] == [1, 2, 3]
    assert rates[1] < rates[0]  # each phase has a schedule of its own
    assert trained.step == trained.num_steps == 3 * 5


def test_a_frozen_body_has_no_dropout() -> None:
    trained = trainer(
        dataclasses.replace(FINE, trainable="head"), model=small_model(dropout=0.5), patches=False
    )
    trained.task.set_mode(trained.settings)
    assert not any(module.training for module in trained.task.modules())


def test_patience_ends_a_phase_early() -> None:
    """An epoch that is as good as the best is not better; each phase waits anew."""
    waiting = dataclasses.replace(FINE, epochs=30, lr=3e-2, patience=2)
    trained = trainer(waiting, waiting)
    accuracies = [epoch.val_accuracy for epoch in run(trained)]
    ends = []
    while accuracies:
        first = next(
            n for n in range(3, len(accuracies) + 1) if accuracies[n - 3] == max(accuracies[:n])
        )
        ends.append(first)
        accuracies = accuracies[first:]
    assert len(ends) == 2
    assert max(ends) < 30


# ---- what may go wrong ---------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_before_the_step() -> None:
    trained = trainer()
    with torch.no_grad():
        trained.task.model.patch_embed.proj.weight[0].fill_(float("nan"))
    head = trained.task.model.head.weight.clone()
    with pytest.raises(NotFiniteError, match=r"loss is nan at step 1 of 15 .* lower --lr"):
        run(trained)
    assert torch.equal(trained.task.model.head.weight, head)


def test_a_gradient_that_is_not_finite_stops_too() -> None:
    trained = trainer()
    trained.task.model.head.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(NotFiniteError, match=r"gradient is (nan|inf) at step 1 of 15"):
        run(trained)


def test_a_diverging_run_says_at_which_step_and_rate() -> None:
    trained = trainer(changed(optimizer="sgd", lr=1e4, grad_clip=0.0, warmup_share=0.0))
    with pytest.raises(NotFiniteError, match=r"at step \d+ of 15 with learning rate [1-9.e+]+"):
        run(trained)


# ---- determinism and resuming --------------------------------------------------------------------


def test_the_same_seed_gives_the_same_weights_bit_for_bit() -> None:
    found = []
    for seed in (5, 5, 6):
        trained = trainer(changed(epochs=1, seed=seed), model=small_model(dropout=0.1))
        torch.manual_seed(len(found))  # what was drawn before does not matter
        run(trained)
        found.append(weights(trained))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


PHASES = {
    "muon": (SETTINGS,),
    "adamw, average": (dataclasses.replace(FINE, ema_decay=0.95, layer_decay=0.7),),
    "adam, then sgd": (
        dataclasses.replace(FINE, epochs=1, optimizer="adam"),
        dataclasses.replace(FINE, epochs=2, optimizer="sgd", lr=1e-2),
    ),
    "head, then all": (
        dataclasses.replace(FINE, epochs=1, trainable="head"),
        dataclasses.replace(FINE, epochs=2, accumulate=2),
    ),
}


@pytest.mark.parametrize("name", PHASES)
def test_every_saved_state_goes_on_to_the_same_bits(name: str) -> None:
    phases = [dataclasses.replace(phase, save_every=2) for phase in PHASES[name]]

    def new(**more: Any) -> Trainer:
        return trainer(*phases, model=small_model(dropout=0.2), **more)

    saved: list[bytes] = []

    def save(state: dict[str, Any]) -> None:
        file = io.BytesIO()
        torch.save(state, file)
        saved.append(file.getvalue())

    whole = new(save=save)
    epochs = run(whole)
    assert len(saved) == 3 * (2 + 1)  # steps 2 and 4 of five, and the end of each epoch
    for data in saved:
        resumed = new()
        with torch.no_grad():
            for each in resumed.task.parameters():
                each.add_(1)
        torch.manual_seed(1234)
        resumed.load_state(torch.load(io.BytesIO(data), weights_only=True))
        run(resumed)
        assert torch.equal(weights(resumed), weights(whole))
        if whole.average is not None:
            assert resumed.average is not None
            pairs = zip(resumed.average.parameters(), whole.average.parameters(), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs)
        without_time = [dataclasses.replace(epoch, seconds=0) for epoch in resumed.epochs]
        assert without_time == [dataclasses.replace(epoch, seconds=0) for epoch in epochs]
