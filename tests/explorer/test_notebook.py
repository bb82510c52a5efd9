"""`show` in a notebook: a frame of its own in a sandbox, as the notebook's page holds it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from minivit.explorer import show
from minivit.vit import VisionTransformer

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("policy", ["", "sandboxed twice"])
def test_the_page_works_in_a_notebooks_frame(
    browser: Any, scenes_model: VisionTransformer, tmp_path: Path, policy: str
) -> None:
    shown = show(scenes_model, ["tutorials/photos/cat.jpg"], methods=("rollout",), name='a"b<c>')
    notebook = tmp_path / "notebook.html"
    output = f"<!doctype html><meta charset=utf-8><p>cell</p>{shown._repr_html_()}<p>next cell</p>"
    notebook.write_text(output, encoding="utf-8")
    if policy:  # as a server that shows files in a sandbox
        outer = tmp_path / "outer.html"
        outer.write_text(
            f'<iframe sandbox="allow-scripts allow-downloads" width=1200 height=1000 '
            f'src="{notebook.name}"></iframe>'
        )
        notebook = outer
    context = browser.new_context(accept_downloads=True, viewport={"width": 1300, "height": 1000})
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    try:
        page.goto(notebook.as_uri())
        for _ in range(400):
            frame = page.frames[-1]
            if frame.parent_frame and frame.evaluate("typeof passes === 'object' && passes.has(0)"):
                break
            page.wait_for_timeout(50)
        assert frame.evaluate("location.protocol") == "about:"
        assert not frame.parent_frame.is_visible("img")  # it is for where there is no frame
        assert frame.text_content("#weights") == 'a"b<c>'
        frame.click("#heads button >> nth=3")  # the address cannot be written to
        assert frame.evaluate("state.head") == 1
        frame.focus("#stage")
        page.keyboard.press("ArrowLeft")
        assert "row" in (frame.text_content("#readout") or "")
        assert frame.query_selector("#link:visible") is None  # there is no address to copy
        with page.expect_download() as download:
            frame.click("#save")
        assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")
        frame.set_input_files("#files", ["tutorials/photos/coffee.jpg"])
        for _ in range(400):
            if frame.evaluate("passes.has(1)"):
                break
            page.wait_for_timeout(50)
        assert frame.text_content("#tabs button:last-child") == "coffee.jpg"
        assert not complaints
    finally:
        context.close()


def test_a_picture_stands_where_frames_are_taken_out(
    browser: Any, scenes_model: VisionTransformer, tmp_path: Path
) -> None:
    """Whether a style is left, as by some, or goes too, as in JupyterLab."""
    output = show(scenes_model, ["tutorials/photos/cat.jpg"], methods=())._repr_html_()
    without_frame = re.sub("<iframe.*</iframe>", "", output, flags=re.DOTALL)
    without_style = re.sub("<style>.*?</style>", "", without_frame)
    assert len(without_style) < len(without_frame) < len(output)
    for left in (without_frame, without_style):
        path = tmp_path / "notebook.html"
        path.write_text(f"<!doctype html><meta charset=utf-8>{left}", encoding="utf-8")
        page = browser.new_page()
        page.goto(path.as_uri())
        assert page.is_visible("img")
        assert page.evaluate("document.querySelector('img').naturalWidth") == 990
        page.close()
