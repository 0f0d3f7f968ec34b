"""maskdpo: sentence-level factuality alignment of language models (Mask-DPO, arXiv 2503.02846).

The stages as functions, the records, and what makes judges and backends; docs/python.md is a walk through them.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from maskdpo.api import (
        BuiltPairs,
        agreement_of_people,
        annotate_responses,
        build_pairs,
        calibrate_annotations,
        encode_pair,
        evaluate_annotations,
        gold_of_decisions,
        ground_prompts,
        make_backend,
        make_judge,
        make_splitter,
        measure_side_effects,
        merge_outputs,
        push_dataset,
        read_records,
        relabel_annotations,
        sample_responses,
        train_judge,
        train_model,
        write_records,
        write_report,
    )
    from maskdpo.errors import UserError
    from maskdpo.schemas import (
        Annotation,
        Decision,
        Label,
        Message,
        Pair,
        PairSentence,
        Prompt,
        Response,
        Sentence,
        Status,
    )
    from maskdpo.train.data.encoded_pair import Drop, EncodedPair

_RECORDS = (
    "Annotation",
    "Decision",
    "Label",
    "Message",
    "Pair",
    "PairSentence",
    "Prompt",
    "Response",
    "Sentence",
    "Status",
)

__all__ = [
    "Annotation",
    "BuiltPairs",
    "Decision",
    "Drop",
    "EncodedPair",
    "Label",
    "Message",
    "Pair",
    "PairSentence",
    "Prompt",
    "Response",
    "Sentence",
    "Status",
    "UserError",
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


_ELSEWHERE = {
    "UserError": "maskdpo.errors",
    "Drop": "maskdpo.train.data.encoded_pair",
    "EncodedPair": "maskdpo.train.data.encoded_pair",
    **dict.fromkeys(_RECORDS, "maskdpo.schemas"),
}


def __getattr__(name: str) -> Any:
    """Imported when asked for, so that ``import maskdpo`` is quick."""
    if name not in __all__:
        raise AttributeError(f"module 'maskdpo' has no attribute {name!r}")
    return getattr(importlib.import_module(_ELSEWHERE.get(name, "maskdpo.api")), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
