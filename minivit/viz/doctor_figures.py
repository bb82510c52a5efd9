"""The page that says why a map looks bad: what the model saw, two maps, and the findings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from minivit.preprocess import to_rgb
from minivit.viz.page import (
    MARGIN,
    NOTE_SIZE,
    PAGE_WIDTH,
    TITLE_SIZE,
    Page,
    Slot,
    line_height,
    wrap_lines,
)
from minivit.viz.panels import (
    COLOUR_MAP,
    add_scale,
    overlay,
    region_pixels,
    require_finite,
    show_pixels,
    whole_box,
)

_TOP, _GAP = 1.1, 0.25  # inches, as all lengths here: above the panels, between them
_TALLEST = 4.5  # a panel
_SCALE, _SCALE_ROOM = 1.6, 0.75  # width of the bar of colours, height of its row
_INDENT = 0.2
_MOST_LINES = 6  # of a paragraph
_TEXT_SIZE = 9.0  # points


class Shown(Protocol):
    """A symptom that is written; `minivit.explain.Symptom` has all of it."""

    @property
    def name(self) -> str: ...
    @property
    def number(self) -> float: ...
    @property
    def threshold(self) -> float: ...
    @property
    def text(self) -> str: ...
    @property
    def advice(self) -> str: ...
    @property
    def is_present(self) -> bool: ...


def symptom_lines(symptoms: Sequence[Shown]) -> list[tuple[str, str]]:
    """What is written of symptoms: headings, and a paragraph below each or "".

    The findings come first; then the numbers of what is in order.
    """
    present = [symptom for symptom in symptoms if symptom.is_present]
    rest = [symptom for symptom in symptoms if not symptom.is_present]
    count = len(present)
    first = f"{count} finding{'s' if count != 1 else ''}, worst first" if count else "Nothing found"
    paragraphs = [(first, "")]
    for symptom in present:
        title = f"{symptom.name}: {symptom.number:.3g} (threshold {symptom.threshold:g})"
        paragraphs.append((title, f"{symptom.text}. What to do: {symptom.advice}."))
    if rest:
        numbers = "; ".join(f"{s.name} {s.number:.3g} ({s.threshold:g})" for s in rest)
        paragraphs.append(("Looked at and below the threshold (in brackets)", f"{numbers}."))
    return paragraphs


def doctor_figure(
    seen: Image.Image,
    attention: Tensor,
    norms: Tensor,
    symptoms: Sequence[Shown],
    *,
    block: int,
    colour_map: str = COLOUR_MAP,
    heading: str = "",
) -> Figure:
    """The picture as the model sees it, the class token's map, the lengths of tokens, and a text.

    Panels are `figure.axes` in this order, in pixels of what the model sees, the bar of colours
    last.

    Args:
        seen: Picture as the model sees it: `Preprocess.view`.
        attention: (rows, cols), what the class token gives to patches, mean over heads.
        norms: (rows, cols), lengths of the patch tokens.
        symptoms: All that was measured, worst first.
        block: Number of the block after which the lengths were measured.
        colour_map: Name of matplotlib's colour map.
        heading: Text above the figure, at most two lines.

    Raises:
        ValueError: A map of another shape, or with values that are not finite.
    """
    require_finite("attention", attention, "(rows, cols)", 2)
    require_finite("norms", norms, "(rows, cols)", 2)
    seen, box = to_rgb(seen), whole_box(seen)
    room = PAGE_WIDTH - 2 * MARGIN
    width = (room - 2 * _GAP) / 3
    height = min(width * seen.height / seen.width, _TALLEST)
    panel = height * seen.width / seen.height
    paragraphs = [
        (title, wrap_lines(text, room - _INDENT, _TEXT_SIZE, _MOST_LINES) if text else [])
        for title, text in symptom_lines(symptoms)
    ]
    step, gap = line_height(_TEXT_SIZE), 0.1
    lengths = [(1 + len(lines)) * step + gap for _, lines in paragraphs]
    top = _TOP + height + _SCALE_ROOM
    page = Page(PAGE_WIDTH, top + sum(lengths) + 0.15)
    page.write_heading(heading)

    median = float(norms.flatten().float().quantile(0.5))
    titles = (
        f"what the model sees\n{seen.width} × {seen.height} pixels, {attention.shape[0]} × "
        f"{attention.shape[1]} patches",
        f"class token, last block, mean over heads\n{float(attention.sum()):.0%} on patches, max "
        f"{float(attention.max()):#.2g}",
        f"lengths of patch tokens after block {block}\nmedian {median:.3g}, max "
        f"{float(norms.max()):.3g}",
    )
    ground = region_pixels(seen, box, grey=True)
    for index, title in enumerate(titles):
        left = MARGIN + index * (width + _GAP) + (width - panel) / 2
        slot = Slot(left, _TOP, panel, height)
        axes = page.axes(slot)
        foot = (slot.center, _TOP - 0.05)
        page.write(title, foot, room=width, size=TITLE_SIZE, above=True)
        if index == 0:
            show_pixels(axes, region_pixels(seen, box), box)
        else:
            show_pixels(axes, ground, box)
            values = (attention, norms)[index - 1].detach().float().cpu()
            overlay(axes, values, box, colour_map=colour_map)
    scale = Slot(MARGIN, _TOP + height + 0.15, _SCALE, 0.13)
    add_scale(page, scale, {0: "0", 1: "maximum"}, colour_map=colour_map)
    at = (MARGIN + _SCALE + 0.35, scale.top - 0.03)
    note = "colour: from 0 to the maximum that the panel's title gives"
    page.write(note, at, room=page.room - _SCALE - 0.35, size=NOTE_SIZE, align="left")

    for (title, lines), length in zip(paragraphs, lengths, strict=True):
        (heading_text,) = page.write(title, (MARGIN, top), room=room, size=_TEXT_SIZE, align="left")
        heading_text.set_fontweight("bold")
        if lines:
            at = (MARGIN + _INDENT, top + step)
            page.write("\n".join(lines), at, room=room - _INDENT, size=_TEXT_SIZE, align="left")
        top += length
    return page.figure
