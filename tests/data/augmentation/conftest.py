"""What the comparisons of transforms with torchvision share."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch


@pytest.fixture(scope="module")
def v2() -> ModuleType:
    """torchvision's transforms, with its random numbers seeded."""
    pytest.importorskip("torchvision")
    from torchvision.transforms import v2

    torch.manual_seed(0)
    return v2
