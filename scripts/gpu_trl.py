"""TRL's DPOTrainer on the shape of the section throughput, by the protocol of benchmarks/train_vs_trl.py."""

import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_parts import ONE_B, TINY, forget, lines_of, model_folder, peak_gb, row, text_pairs


def trl(small: bool) -> Iterator[dict[str, Any]]:
    if missing := [name for name in ("trl", "datasets", "pandas", "pyarrow") if importlib.util.find_spec(name) is None]:
        yield row("TRL", f"not installed: {', '.join(missing)}")
        return
    from train_vs_trl import BEST, _train_trl

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = model_folder(folder / "model", dtype=torch.bfloat16, **(TINY if small else ONE_B))
        # sentences of about 35 tokens of so small a vocabulary
        rows = [
            {key: pair[key] for key in ("prompt", "chosen", "rejected")}
            for pair in lines_of(text_pairs(folder / "pairs.jsonl", 4 if small else 16, 1 if small else 11))
        ]
        for micro in (2,) if small else (2, 8):
            forget()
            trainer, _, times = _train_trl(str(model), rows, 3, micro, "bfloat16", dict(BEST))
            yield row(f"TRL, micro-batch {micro}: pairs/s", len(rows) / float(np.mean(times[1:])))
            yield row(f"TRL, micro-batch {micro}: peak GB", peak_gb())
            del trainer
