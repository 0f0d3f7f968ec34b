"""Record files: validated streaming reads, durable appends, atomic writes.

A file appears either by append (long stages, so that a crash loses nothing) or by atomic rename (everything else).
"""

from maskdpo.io.append import Appender, reorder
from maskdpo.io.read import (
    KINDS,
    AnswerT,
    Located,
    R,
    open_input,
    read_answers,
    read_located,
    read_prompts,
    read_records,
    record_type,
    scan,
)
from maskdpo.io.write import RECORD_BEGIN, atomic_write, refuse_overwriting, to_line, write_records

__all__ = [
    "KINDS",
    "RECORD_BEGIN",
    "AnswerT",
    "Appender",
    "Located",
    "R",
    "atomic_write",
    "open_input",
    "read_answers",
    "read_located",
    "read_prompts",
    "read_records",
    "record_type",
    "refuse_overwriting",
    "reorder",
    "scan",
    "to_line",
    "write_records",
]
