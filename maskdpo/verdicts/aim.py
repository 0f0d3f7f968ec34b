"""What the labels of a calibrated judge are decided for."""

from typing import Literal, NamedTuple


class Aim(NamedTuple):
    """What labels are decided for."""

    name: Literal["balanced", "precision"] = "balanced"
    precision: float | None = None
    """The least precision of right and of wrong, for the aim of this name."""

    def __str__(self) -> str:
        return self.name if self.precision is None else f"{self.name}={self.precision:g}"


def parse_aim(text: str) -> Aim:
    """``balanced``, or ``precision=P`` with 0.5 < P < 1.

    Raises:
        ValueError: it is neither.
    """
    if text == "balanced":
        return Aim()
    name, _, number = text.partition("=")
    try:
        precision = float(number) if name == "precision" else -1.0
    except ValueError:
        precision = -1.0
    if not 0.5 < precision < 1:
        raise ValueError(f"{text!r} is neither balanced nor precision=P with a P between 0.5 and 1")
    return Aim("precision", precision)
