"""Record files: validated streaming reads, durable appends, atomic writes. JSONL, Parquet, or a dataset on the Hub.

Long stages append to their output, so that a crash loses nothing; all other files appear by atomic rename.
"""

from maskdpo.io.append import Appender, reorder
from maskdpo.io.read import (
    Input,
    Located,
    files_of,
    open_input,
    read_answers,
    read_located,
    read_prompts,
    read_records,
    record_type,
    scan,
    shown_as,
)
from maskdpo.io.sources import CONFIGS, dataset_of, identity, is_on_hub, sha256, with_config
from maskdpo.io.text import numbered_lines, open_bytes
from maskdpo.io.write import atomic_write, record_writer, refuse_overwriting, to_line, write_records

__all__ = [
    "CONFIGS",
    "Appender",
    "Input",
    "Located",
    "atomic_write",
    "dataset_of",
    "files_of",
    "identity",
    "is_on_hub",
    "numbered_lines",
    "open_bytes",
    "open_input",
    "read_answers",
    "read_located",
    "read_prompts",
    "read_records",
    "record_type",
    "record_writer",
    "refuse_overwriting",
    "reorder",
    "scan",
    "sha256",
    "shown_as",
    "to_line",
    "with_config",
    "write_records",
]
