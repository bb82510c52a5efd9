"""MixUp and CutMix: every pixel and every share of a label where it belongs."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from minivit.data.augmentation.boxes import Box
from minivit.data.augmentation.pipeline import CutMix, MixUp


def batch(size: int = 5, classes: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(size, 3, 20, 30, generator=generator)
    return images, torch.randint(classes, (size,), generator=generator)


def test_mixup_is_the_weighted_sum_with_the_sample_before():
    images, labels = batch()
    for share in (0.0, 0.25, 0.8, 1.0):
        mixed, targets = MixUp(7).apply(images, labels, share)
        for i in range(5):
            expected = share * images[i] + (1 - share) * images[i - 1]
            torch.testing.assert_close(mixed[i], expected)
            wanted = torch.zeros(7)
            wanted[labels[i]] += share
            wanted[labels[i - 1]] += 1 - share
            torch.testing.assert_close(targets[i], wanted)
    assert torch.equal(MixUp(7).apply(images, labels, 1.0)[0], images)


@pytest.mark.parametrize("box", [(3, 5, 8, 11), (0, 0, 20, 30), (19, 29, 1, 1), (4, 4, 0, 0)])
def test_cutmix_pastes_the_box_and_counts_its_pixels(box):
    images, labels = batch()
    top, left, height, width = box
    mixed, targets = CutMix(7).apply(images, labels, Box(*box))
    inside = torch.zeros(20, 30, dtype=torch.bool)
    inside[top : top + height, left : left + width] = True
    assert torch.equal(mixed[:, :, ~inside], images[:, :, ~inside])
    assert torch.equal(mixed[:, :, inside], images.roll(1, 0)[:, :, inside])
    share = 1 - int(inside.sum()) / 600
    wanted = share * F.one_hot(labels, 7) + (1 - share) * F.one_hot(labels.roll(1), 7)
    torch.testing.assert_close(targets, wanted)


@pytest.mark.parametrize("mixing", [MixUp(7, alpha=0.8), CutMix(7, alpha=0.8)])
def test_targets_sum_to_one_and_the_batch_is_left_alone(mixing):
    images, labels = batch()
    before = images.clone(), labels.clone()
    for seed in range(50):
        mixed, targets = mixing(images, labels, np.random.default_rng(seed))
        again, _ = mixing(images, labels, np.random.default_rng(seed))
        assert torch.equal(mixed, again)
        assert mixed.shape == images.shape and mixed.dtype == images.dtype
        assert targets.shape == (5, 7) and targets.dtype == torch.float32
        assert (targets >= 0).all()
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(5))
    assert torch.equal(images, before[0]) and torch.equal(labels, before[1])


@pytest.mark.parametrize("mixing", [MixUp(7), CutMix(7)])
def test_the_loss_is_the_mixture_of_losses_also_with_label_smoothing(mixing):
    images, labels = batch()
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    parameters = mixing.draw(np.random.default_rng(3), (20, 30))
    _, targets = mixing.apply(images, labels, parameters)
    share = parameters
    if isinstance(parameters, Box):
        share = 1 - parameters.height * parameters.width / 600
    for smoothing in (0.0, 0.1):
        own = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        other = F.cross_entropy(logits, labels.roll(1), label_smoothing=smoothing)
        loss = F.cross_entropy(logits, targets, label_smoothing=smoothing)
        torch.testing.assert_close(loss, share * own + (1 - share) * other)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixup_draws_from_the_beta_distribution(alpha):
    rng = np.random.default_rng(0)
    values = np.array([MixUp(7, alpha=alpha).draw(rng, (20, 30)) for _ in range(4000)])
    assert values.min() >= 0 and values.max() <= 1
    assert values.mean() == pytest.approx(0.5, abs=0.02)
    assert values.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)


def test_cutmix_draws_boxes_of_the_photos_shape_around_any_pixel():
    """Off the edges: both sides the same share of the photo's, and 1 - λ of its area, λ uniform."""
    rng, size = np.random.default_rng(0), (2000, 3000)
    boxes = [CutMix(7).draw(rng, size) for _ in range(4000)]
    for top, left, height, width in boxes:
        assert 0 <= top <= top + height <= 2000 and 0 <= left <= left + width <= 3000
        if top > 0 and left > 0 and top + height < 2000 and left + width < 3000:
            assert height / 2000 == pytest.approx(width / 3000, abs=2 / 2000)
    # A centre falls on any pixel; the share that a side r of the unit square keeps after the cut is
    # r - r²/4, so the mean area is that squared, over r² uniform in 0..1.
    mean = np.mean([box.height * box.width / 6e6 for box in boxes])
    r = np.sqrt((np.arange(10_000) + 0.5) / 10_000)
    assert mean == pytest.approx(np.mean((r - r**2 / 4) ** 2), abs=0.01)
    middle = [box for box in boxes if box.left > 0 and box.left + box.width < 3000]
    centres = np.array([box.left + box.width / 2 for box in middle])
    assert centres.mean() == pytest.approx(1500, abs=30)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MixUp(0), "MixUp num_classes is 0, expected a whole number above 0"),
        (lambda: CutMix(7, alpha=0), "CutMix alpha is 0"),
        (lambda: CutMix(7, alpha=math.nan), "alpha is nan"),
        (lambda: call(torch.zeros(5, 3, 4, 6), torch.zeros(4).long()), r"found \(5, 3, 4, 6\) and"),
        (lambda: call(torch.zeros(3, 4, 6), torch.zeros(3).long()), r"expected \(B, 3, H, W\)"),
        (lambda: call(torch.zeros(1, 3, 4, 6).byte(), torch.zeros(1).long()), "found torch.uint8"),
        (lambda: call(torch.zeros(1, 3, 4, 6), torch.zeros(1)), "expected floats and integers"),
        (lambda: call(torch.zeros(2, 3, 4, 6), torch.tensor([1, 7])), r"found 1\.\.7, .*0\.\.6"),
        (lambda: call(torch.zeros(2, 3, 4, 6), torch.tensor([-1, 2])), r"found -1\.\.2"),
    ],
)
def test_what_cannot_be_mixed_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def call(images: torch.Tensor, labels: torch.Tensor) -> object:
    return MixUp(7)(images, labels, np.random.default_rng(0))


# --- side by side with torchvision -----------------------------------------------------------


@pytest.mark.parity
@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
@pytest.mark.parametrize("name", ["MixUp", "CutMix"])
def test_mixtures_equal_torchvision(v2, name, alpha):
    images, labels = batch()
    theirs = getattr(v2, name)(alpha=alpha, num_classes=7)
    ours = {"MixUp": MixUp, "CutMix": CutMix}[name](7, alpha=alpha)
    for _ in range(50):
        given = theirs.make_params([images])
        context = given | {"labels": labels, "batch_size": 5}
        parameters = given.get("lam")
        if name == "CutMix":
            left, top, right, bottom = given["box"]
            parameters = Box(top, left, bottom - top, right - left)
        mixed, targets = ours.apply(images, labels, parameters)
        assert torch.equal(mixed, theirs.transform(images, context))
        assert torch.equal(targets, theirs.transform(labels, context))


@pytest.mark.parity
@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_boxes_are_those_of_torchvisions_rule(v2, alpha, monkeypatch):
    """With the same λ and the same pixel in the middle the box is the same; all others follow."""
    theirs, images = v2.CutMix(alpha=alpha, num_classes=7), torch.zeros(2, 3, 37, 55)
    rng = np.random.default_rng(0)

    class Given:
        """Gives out numbers that were drawn before."""

        def __init__(self, share: float, x: int, y: int) -> None:
            self.share, self.whole = share, iter((x, y))

        def beta(self, a: float, b: float) -> float:
            return self.share

        def integers(self, high: int) -> int:
            return next(self.whole)

    for _ in range(300):
        share, x, y = float(rng.beta(alpha, alpha)), int(rng.integers(55)), int(rng.integers(37))
        whole = iter((x, y))
        monkeypatch.setattr(theirs, "_dist", type("D", (), {"sample": lambda *_, s=share: s})())
        monkeypatch.setattr(torch, "randint", lambda *_, size, w=whole: torch.tensor([next(w)]))
        left, top, right, bottom = theirs.make_params([images])["box"]
        box = CutMix(7, alpha=alpha).draw(Given(share, x, y), (37, 55))
        assert box == (top, left, bottom - top, right - left)
