"""Freed memory stays with the process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from tests.training.photo_runs import ROOT


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries stay as they are")
@pytest.mark.parametrize("keep", [True, False])
def test_freed_memory_is_there_for_the_next_step(keep: bool) -> None:
    code = f"""
import resource, torch, minivit
from minivit.training.memory import keep_freed_memory
if {keep}:
    keep_freed_memory()
model = minivit.VisionTransformer(minivit.ViTConfig.from_name("small_patch16_224", depth=4))
def fresh_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    model(torch.ones(8, 3, 224, 224)).sum().backward()
    model.zero_grad()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
fresh_pages()
print(sum(fresh_pages() for _ in range(3)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert (int(done.stdout) < 16_000) == keep  # 4 KiB each; the first step took 50,000
