"""The stages as Python functions; ``import maskdpo`` offers them. docs/python.md is a walk through all of them.

Records are given as a path, or as an iterable of records. A function with ``out`` writes files as its command does,
resumable, and returns what the run did; without ``out`` the function returns records. Further settings are those of the
command by their Python names, such as ``max_tokens=64``: ``maskdpo COMMAND --help`` and the settings models list them.
Every function raises ``UserError`` for what the caller can put right, in words that name parameters and fields.
"""

from maskdpo.api.answers import ground_prompts, sample_responses
from maskdpo.api.labels import annotate_responses, calibrate_annotations, merge_outputs, relabel_annotations
from maskdpo.api.pairs import BuiltPairs, build_pairs, push_dataset
from maskdpo.api.people import agreement_of_people, gold_of_decisions
from maskdpo.api.results import evaluate_annotations, write_report
from maskdpo.api.tools import make_backend, make_judge, make_splitter, read_records, write_records
from maskdpo.api.training import encode_pair, measure_side_effects, train_judge, train_model

__all__ = [
    "BuiltPairs",
    "agreement_of_people",
    "annotate_responses",
    "build_pairs",
    "calibrate_annotations",
    "encode_pair",
    "evaluate_annotations",
    "gold_of_decisions",
    "ground_prompts",
    "make_backend",
    "make_judge",
    "make_splitter",
    "measure_side_effects",
    "merge_outputs",
    "push_dataset",
    "read_records",
    "relabel_annotations",
    "sample_responses",
    "train_judge",
    "train_model",
    "write_records",
    "write_report",
]
