"""Pictures that a command draws into a file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskdpo.errors import InputError
from maskdpo.extras import require
from maskdpo.io.write import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")


def check_plot(path: Path) -> None:
    """A plot that cannot be drawn at the end is an error at the start.

    Raises:
        UserError: the name has another ending, or matplotlib is not installed.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"the name must end in {', '.join(FORMATS)}", path=path)
    require("matplotlib", install="'maskdpo[train]'", purpose="`plot`")


def new_plot(width: float, height: float, columns: int = 1) -> "tuple[Figure, list[Any]]":
    """A figure of so many inches with its axes, side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))  # without pyplot: no display, no global state
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def save_plot(figure: "Figure", path: Path) -> None:
    """Write the file, atomically, in the format that its name ends in."""
    with atomic_write(path) as file:
        figure.savefig(file, dpi=150, format=path.suffix.lower()[1:], bbox_inches="tight")
