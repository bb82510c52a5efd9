"""Principal components of patch filters: numpy's eigenvectors, and planted ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from minivit import VisionTransformer, ViTConfig
from minivit.explain import filter_components
from tests.explain.sharpened import make_images, make_model, untouched


@pytest.mark.parametrize("channels", [1, 3])
def test_they_are_eigenvectors_of_the_covariance(channels: int) -> None:
    model = make_model(in_channels=channels)
    with untouched(model, make_images()):
        components, shares = filter_components(model, count=5)
    assert components.shape == (5, channels, 6, 4) and shares.shape == (5,)
    assert not components.requires_grad
    filters = model.patch_embed.proj.weight.detach().flatten(1).numpy()
    values, vectors = np.linalg.eigh(np.cov(filters.T))
    np.testing.assert_allclose(shares.numpy(), values[::-1][:5] / values.sum(), rtol=1e-9)
    flat = components.flatten(1).numpy()
    for component, vector in zip(flat, vectors.T[::-1][:5], strict=True):
        vector = vector * np.sign(vector[np.abs(vector).argmax()])
        np.testing.assert_allclose(component, vector, atol=1e-8)
    np.testing.assert_allclose(flat @ flat.T, np.eye(5), atol=1e-10)


def test_a_planted_direction_is_the_first_whatever_the_filters_mean() -> None:
    model = make_model()
    direction = torch.zeros(3, 6, 4).double()
    direction[1, 2, :] = -0.5  # length 1
    with torch.no_grad():
        weight = model.patch_embed.proj.weight
        weight.mul_(0.01).add_(7.0)
        weight.add_(torch.linspace(-1, 1, 24).double()[:, None, None, None] * direction)
    components, shares = filter_components(model, count=1)
    torch.testing.assert_close(components[0], -direction, atol=0.05, rtol=0)  # turned positive
    assert float(shares[0]) > 0.95


def test_all_shares_sum_to_one_and_more_components_than_there_are_are_refused() -> None:
    model = make_model()  # 24 filters of 72 values
    assert float(filter_components(model, count=24).shares.sum()) == pytest.approx(1.0)
    for count in (25, 0, 1.5):
        with pytest.raises(ValueError, match="expected a whole number from 1 to 24"):
            filter_components(model, count=count)


def test_equal_filters_have_no_variance_to_share() -> None:
    model = VisionTransformer(ViTConfig.from_name("debug_patch8_32"))
    torch.nn.init.zeros_(model.patch_embed.proj.weight)
    assert filter_components(model, count=3).shares.tolist() == [0, 0, 0]
