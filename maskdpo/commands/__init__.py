"""The commands: each takes its settings, calls one plain function and prints what came of it.

Heavy imports stay inside the functions, so that ``--help`` is quick.
"""

from collections.abc import Callable
from typing import Any

from maskdpo.commands.answers import annotate, sample
from maskdpo.commands.formats import export, import_
from maskdpo.commands.ground import ground
from maskdpo.commands.hub import push
from maskdpo.commands.judges import train_judge
from maskdpo.commands.labels import calibrate, relabel
from maskdpo.commands.merge import merge
from maskdpo.commands.pairs import build_pairs
from maskdpo.commands.people import agree, gold, review
from maskdpo.commands.pipeline import lineage, run
from maskdpo.commands.plugins import plugins
from maskdpo.commands.results import evaluate, report, validate
from maskdpo.commands.training import inspect, side_effects, train

COMMANDS: dict[str, Callable[[Any], None]] = {
    "sample": sample,
    "ground": ground,
    "annotate": annotate,
    "merge": merge,
    "review": review,
    "calibrate": calibrate,
    "relabel": relabel,
    "agree": agree,
    "gold": gold,
    "build-pairs": build_pairs,
    "train": train,
    "side-effects": side_effects,
    "inspect": inspect,
    "train-judge": train_judge,
    "evaluate": evaluate,
    "report": report,
    "validate": validate,
    "push": push,
    "export": export,
    "import": import_,
    "run": run,
    "lineage": lineage,
    "plugins": plugins,
}
"""In the order in which ``--help`` lists them. A command is a function of one settings model, called ``settings``."""
