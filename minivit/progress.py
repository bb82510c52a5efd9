"""Progress bars for anything that takes longer than two seconds.

The library takes a `Bar`, or None, and does not know how it is drawn; the commands give it one of
`progress_bars`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

Bar = Callable[[str, int], Callable[[int], object]]
"""Takes a title and a total, gives a function that is told how many more have been done."""


@contextlib.contextmanager
def progress_bars() -> Iterator[Bar]:
    """Progress bars that vanish when they are full, and with the block that they are used in.

    Of several processes of one training only the first shows them.

    Yields:
        A `Bar` that opens a new progress bar on the terminal at each call.
    """
    from tqdm import tqdm  # here, so that --help does not wait for it

    hidden = os.environ.get("RANK", "0") != "0"
    with contextlib.ExitStack() as open_bars:

        def bar(title: str, total: int) -> Callable[[int], object]:
            shown = tqdm(total=total, desc=title, leave=False, disable=hidden)
            open_bars.callback(shown.close)

            def update(number: int) -> None:
                shown.update(number)
                if shown.n >= total:
                    shown.close()

            return update

        yield bar
