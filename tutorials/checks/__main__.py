"""python -m tutorials.checks: which exercises are solved, and which are not yet."""

from tutorials.checks import EXERCISES
from tutorials.checks.progress import progress_file, solved


def main() -> None:
    """Print a line an exercise, and where the record is kept."""
    known = solved()
    for number, check in sorted(EXERCISES.items(), key=lambda item: _order(item[0])):
        print(f"{'solved' if number in known else '      '}  {number:5} {check.title}")
    count = sum(number in known for number in EXERCISES)
    print(f"{count} of {len(EXERCISES)} solved ({progress_file()})")


def _order(number: str) -> tuple[int, ...]:
    return tuple(int(part) for part in number.split("."))


if __name__ == "__main__":
    main()
