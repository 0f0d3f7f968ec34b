"""``maskdpo plugins``."""

from typing import Any

from rich.text import Text

from maskdpo import console
from maskdpo.registry import Registry
from maskdpo.settings import Settings


class PluginsSettings(Settings):
    """``maskdpo plugins`` has no settings of its own."""


def plugins(settings: PluginsSettings) -> None:
    """List what can be chosen by name: judges, backends, splitters, retrievers, strategies, scores, losses, methods and
    formats.

    Installed packages may bring more. CONTRIBUTING.md shows how to write one of your own.
    """
    from maskdpo.annotate.judges import JUDGES
    from maskdpo.backends import BACKENDS
    from maskdpo.dataset.score import SCORES
    from maskdpo.dataset.strategies import STRATEGIES
    from maskdpo.formats.exporting import EXPORTS
    from maskdpo.formats.importing import IMPORTS
    from maskdpo.ground.retriever import RETRIEVERS
    from maskdpo.text.splitters import SPLITTERS
    from maskdpo.train.data.weights import METHODS
    from maskdpo.train.loss_registry import LOSSES

    chosen_by: dict[str, Registry[Any]] = {
        "annotate --judge": JUDGES,
        "sample, annotate --backend": BACKENDS,
        "annotate --splitter": SPLITTERS,
        "ground --retriever": RETRIEVERS,
        "build-pairs --strategy": STRATEGIES,
        "build-pairs --score": SCORES,
        "train, inspect, report --method": METHODS,
        "train --loss": LOSSES,
        "export --format": EXPORTS,
        "import --format": IMPORTS,
    }
    for option, found in chosen_by.items():
        listed = found.list()
        names = (p.name if p.origin == "maskdpo" else f"{p.name} ({p.origin})" for p in listed)
        console.out.print(Text.assemble((option, "bold"), "  ", ", ".join(names)))
    console.say("Each of these options also takes package.module:object or ./file.py:object.")
