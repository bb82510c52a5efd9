"""python -m tutorials.make_notebooks: NN_name.py, executed, becomes NN_name.ipynb with outputs.

A notebook whose cells are those of its source is left alone (`--all` makes it all the same). Ids
of cells are digests of their text and times are not recorded, so that a notebook made again differs
only where its outputs do. `--exercises` writes tutorials/work/ instead: the lessons without
solutions and without outputs.
"""

from __future__ import annotations

import sys
from hashlib import sha256
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from minivit.commands.terminal import Parser
from minivit.files import replacing

FOLDER = Path(__file__).parent
WORK = FOLDER / "work"
_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def sources() -> list[Path]:
    """The lessons' sources, in order."""
    return sorted(FOLDER.glob("[0-9][0-9]_*.py"))


def notebook_of(source: Path) -> NotebookNode:
    """The cells of a lesson as a notebook without outputs."""
    notebook = jupytext.read(source, fmt="py:percent")
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": _KERNEL, "language_info": {"name": "python"}}
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        digest = sha256(cell.source.encode()).hexdigest()[:12]
        seen[digest] = seen.get(digest, 0) + 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
    return notebook


def is_current(source: Path) -> bool:
    """Whether the notebook beside a source has its cells, in order, with their tags."""
    path = source.with_suffix(".ipynb")
    if not path.is_file():
        return False
    return _cells(nbformat.read(path, as_version=4)) == _cells(notebook_of(source))


def execute(notebook: NotebookNode, folder: Path = FOLDER) -> None:
    """Run all cells in a fresh kernel, and keep what they show.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell raised an error.
    """
    metadata = notebook.metadata
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,  # else a print is cut in two or not as the clock has it
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    notebook.metadata = metadata  # the kernel wrote its own version there


def without_solutions(notebook: NotebookNode) -> NotebookNode:
    """The same cells, without those that hold a solution."""
    copy = nbformat.from_dict(notebook)
    copy.cells = [cell for cell in copy.cells if "solution" not in cell.metadata.get("tags", [])]
    return copy


def _cells(notebook: NotebookNode) -> list[tuple[str, str, list[str]]]:
    return [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in notebook.cells]


def _write(notebook: NotebookNode, path: Path) -> None:
    with replacing(path) as temporary:
        nbformat.write(notebook, temporary)


def main(arguments: list[str] | None = None) -> int:
    """Make what is not current, or what is named."""
    parser = Parser(prog="python -m tutorials.make_notebooks")
    parser.add_argument(
        "lessons", nargs="*", metavar="NN", help="numbers of lessons (default: all)"
    )
    parser.add_argument("--all", action="store_true", help="those that are current too")
    parser.add_argument("--exercises", action="store_true", help="write tutorials/work/ instead")
    flags = parser.parse_args(arguments)
    chosen = [path for path in sources() if not flags.lessons or path.name[:2] in flags.lessons]
    if not chosen:
        parser.error(f"no lesson {' '.join(flags.lessons)}: {', '.join(s.stem for s in sources())}")
    for source in chosen:
        if flags.exercises:
            target = WORK / source.with_suffix(".ipynb").name
            if target.exists():
                print(f"{target.name}: kept, it is there already")
                continue
            _write(without_solutions(notebook_of(source)), target)
        else:
            target = source.with_suffix(".ipynb")
            if is_current(source) and not flags.all:
                print(f"{target.name}: current")
                continue
            notebook = notebook_of(source)
            execute(notebook)
            _write(notebook, target)
        print(f"{target.name}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
