"""One known cause of bad maps, with its number: what `doctor.py` gives."""

from __future__ import annotations

from dataclasses import dataclass

from minivit.fields import is_number, require


@dataclass(frozen=True)
class Symptom:
    """A known cause of bad maps, and how far a picture shows it.

    Attributes:
        name: Name of the cause.
        number: What was measured; larger is worse.
        threshold: Number above which it is a finding, above 0.
        text: Sentence that says what was measured.
        advice: Sentence that says what to do.
    """

    name: str
    number: float
    threshold: float
    text: str
    advice: str

    def __post_init__(self) -> None:
        good = is_number(self.number, 0)
        require(
            self, "number", good, "a finite number from 0; are weights damaged?", what=self.name
        )
        good = is_number(self.threshold, 0) and self.threshold > 0
        require(self, "threshold", good, "a number above 0")

    @property
    def is_present(self) -> bool:
        """Whether the number is above the threshold."""
        return self.number > self.threshold

    @property
    def severity(self) -> float:
        """The number as a multiple of the threshold."""
        return self.number / self.threshold
