"""``maskdpo plugins``."""

from maskdpo import console
from maskdpo.settings import Settings


class PluginsSettings(Settings):
    """``maskdpo plugins`` has no settings of its own."""


def plugins(settings: PluginsSettings) -> None:
    """List what can be chosen by name: judges, backends, splitters, strategies, scores, losses, methods and formats.

    Installed packages may bring more. CONTRIBUTING.md shows how to write one of your own.
    """
    from maskdpo.annotate.judges import JUDGES
    from maskdpo.backends import BACKENDS
    from maskdpo.dataset.score import SCORES
    from maskdpo.dataset.strategies import STRATEGIES
    from maskdpo.formats.transfer import EXPORTS, IMPORTS
    from maskdpo.text.splitters import SPLITTERS
    from maskdpo.train.data.weights import METHODS
    from maskdpo.train.losses import LOSSES

    chosen_by = {
        "annotate --judge": JUDGES,
        "sample, annotate --backend": BACKENDS,
        "annotate --splitter": SPLITTERS,
        "build-pairs --strategy": STRATEGIES,
        "build-pairs --score": SCORES,
        "train --method": METHODS,
        "train --loss": LOSSES,
        "export --format": EXPORTS,
        "import --format": IMPORTS,
    }
    rows = [(option, plugin.name, plugin.origin) for option, found in chosen_by.items() for plugin in found.list()]
    console.table("plugins", ("option", "name", "from"), rows)
    console.say("each of these options also takes package.module:object or ./file.py:object")
