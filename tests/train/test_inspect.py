"""``inspect`` shows the weights that ``train`` uses, whatever the method."""

import json
from pathlib import Path

import pytest
from train_helpers import encoder, make_pair
from transformers import AutoTokenizer

from maskdpo.io import write_records
from maskdpo.schemas import Label
from maskdpo.train.data.encoded_pair import EncodedPair
from maskdpo.train.data.inspect import inspect_pairs
from maskdpo.train.data.settings import InspectSettings
from maskdpo.train.data.weights import METHODS


@pytest.mark.parametrize("method", METHODS)
def test_the_weights_are_those_of_training(method: str, tiny_model: str, tmp_path: Path) -> None:
    pair = make_pair(
        [("Paris is big.", Label.NO_HALLUCINATION), (" It is red.", Label.CONTRADICTORY)], [("No.", Label.UNVERIFIABLE)]
    )
    sure = pair.chosen_sentences[0].model_copy(update={"confidence": 0.25})
    pair = pair.model_copy(update={"chosen_sentences": [sure, *pair.chosen_sentences[1:]]})
    write_records(tmp_path / "pairs.jsonl", [pair])
    stats, texts = inspect_pairs(
        InspectSettings(
            pairs=tmp_path / "pairs.jsonl", model=tiny_model, method=method, json_file=tmp_path / "out.jsonl"
        )
    )
    encoded = encoder(AutoTokenizer.from_pretrained(tiny_model), method=method).encode(pair)
    assert isinstance(encoded, EncodedPair)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    for row, side in zip(rows, (encoded.chosen, encoded.rejected), strict=True):
        assert row["weights"] == [0.0] * len(encoded.prompt_ids) + side.weights.tolist()
        assert stats.kept[row["side"]] == (side.weights > 0).sum()
    assert (0.25 in rows[0]["weights"]) == (method == "soft")
    assert "⟦Paris is big.⟧" in texts[0].plain or method in ("dpo", "rejected-only")
