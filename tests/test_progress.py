"""Progress bars: counted to the end, gone afterwards, and shown by one process only."""

import pytest

from minivit.progress import progress_bars


class Terminal:
    """Stands for tqdm: what it was told, and whether it is closed."""

    opened: list["Terminal"]

    def __init__(self, *, total: int, desc: str, leave: bool, disable: bool) -> None:
        self.total, self.title, self.stays, self.hidden = total, desc, leave, disable
        self.n, self.closed = 0, False
        self.opened.append(self)

    def update(self, number: int) -> None:
        assert not self.closed
        self.n += number

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Terminal]:
    """The bars that are opened, in order."""
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(Terminal, "opened", [], raising=False)
    monkeypatch.setattr("tqdm.tqdm", Terminal)
    return Terminal.opened


def test_a_bar_counts_and_closes_when_it_is_full(opened: list[Terminal]) -> None:
    with progress_bars() as bar:
        assert not opened
        report = bar("checking photos", 5)
        (shown,) = opened
        assert (shown.title, shown.total, shown.stays, shown.hidden) == (
            "checking photos", 5, False, False
        )  # fmt: skip
        report(2)
        assert shown.n == 2 and not shown.closed
        report(3)
        assert shown.n == 5 and shown.closed


def test_bars_close_with_the_block_also_after_an_error(opened: list[Terminal]) -> None:
    with pytest.raises(ZeroDivisionError), progress_bars() as bar:
        bar("one", 5)(2)
        bar("two", 7)
        _ = 1 // 0
    assert [(shown.n, shown.closed) for shown in opened] == [(2, True), (0, True)]


@pytest.mark.parametrize(("rank", "hidden"), [("0", False), ("1", True)])
def test_the_first_process_alone_shows_bars(
    opened: list[Terminal], monkeypatch: pytest.MonkeyPatch, rank: str, hidden: bool
) -> None:
    monkeypatch.setenv("RANK", rank)
    with progress_bars() as bar:
        bar("one", 5)
    assert opened[0].hidden == hidden
