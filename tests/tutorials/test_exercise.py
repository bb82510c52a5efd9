"""What a check says of answers of any exercise: none, an error, an input that was changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tutorials.lessons import assert_told_apart, changed_in_place
from tutorials.checks import EXERCISES, __main__, progress
from tutorials.checks.exercise import (
    Check,
    ask,
    expect_close,
    expect_gradient,
    expect_shape,
)


def _double(answer: Callable[[Tensor], Tensor]) -> None:
    x = torch.arange(6.0).view(2, 3).requires_grad_()
    doubled = ask(answer, x)
    expect_shape(doubled, (2, 3), "(B, N)")
    expect_close(doubled, 2 * x, {"you squared": x**2}, "these are not the doubles")
    expect_gradient(doubled, x, "x")


DOUBLE = Check("99.1", "Double a tensor", _double)


def stub(x: Tensor) -> Tensor:
    """Twice x."""
    ...


def _raises(x: Tensor) -> Tensor:
    return x.view(7)


def test_answers_are_told_apart() -> None:
    assert_told_apart(
        DOUBLE,
        right=[lambda x: 2 * x, lambda x: x + x],
        wrong={
            "nothing is written yet": stub,
            "nothing comes back: is": lambda x: print(end="") if x.any() else None,
            "RuntimeError": _raises,
            "a tensor (B, N) is expected": lambda x: 3,
            "the shape is (3, 2)": lambda x: 2 * x.T,
            "you squared": lambda x: x**2,
            "not the doubles": lambda x: x + 1,
            "no gradient": lambda x: 2 * x.detach(),
            "other numbers afterwards": changed_in_place(lambda x: 2 * x),
            "a function is expected": 3,
        },
    )


@pytest.mark.parametrize("answer", [None, ..., stub, lambda x: ...])
def test_what_is_not_written_is_no_mistake(answer: Any) -> None:
    message = DOUBLE.message(answer)
    assert message is not None and "..." in message


def test_what_is_solved_is_remembered_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    DOUBLE(stub)
    assert progress.solved() == {}
    DOUBLE(lambda x: 2 * x)
    assert progress.solved() == {"99.1": "Double a tensor"}
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("99.1 not solved: nothing is written yet") and out[1] == (
        "99.1 solved: Double a tensor"
    )
    monkeypatch.setitem(EXERCISES, "99.1", DOUBLE)
    assert __main__.main([]) == 0
    out = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["solved", "99.1", "Double", "a", "tensor"] for line in out)
    assert out[-1].startswith(f"1 of {len(EXERCISES)} solved")


@pytest.mark.parametrize("damage", ["", "[]", "{", json.dumps({"1.1": 3})])
def test_a_damaged_record_stands_in_no_ones_way(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    progress.progress_file().parent.mkdir(parents=True)
    progress.progress_file().write_text(damage)
    DOUBLE(lambda x: 2 * x)
    assert progress.solved()["99.1"] == "Double a tensor"


def test_a_check_leaves_the_random_numbers_as_they_were() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    DOUBLE.message(lambda x: 2 * x + 0 * torch.rand(1))
    assert torch.equal(torch.rand(2), expected)
