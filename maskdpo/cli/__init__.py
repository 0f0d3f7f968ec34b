"""The commands: parse, call one plain function, print. Heavy imports stay inside them, so that --help is quick.

A module a step of the pipeline, in the order in which ``--help`` lists the commands.
"""

from maskdpo.cli import answers, pairs, training, results, hub, formats, pipeline  # isort: skip
from maskdpo.cli.app import app, main

__all__ = ["answers", "app", "formats", "hub", "main", "pairs", "pipeline", "results", "training"]
