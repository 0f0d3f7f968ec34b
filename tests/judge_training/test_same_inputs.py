"""A judge reads the same texts when it is trained, measured and asked."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from maskdpo.annotate.sentences import by_classifier
from maskdpo.api import annotate_responses
from maskdpo.classifier.inputs import Encoded
from maskdpo.classifier.spec import write_spec
from maskdpo.io import write_records
from maskdpo.judge_training.examples import LabelledSentence, read_examples
from maskdpo.judge_training.figures import judge_examples
from maskdpo.judge_training.rows import Reader
from maskdpo.judge_training.settings import TrainJudgeConfig
from maskdpo.judge_training.spec import new_spec
from maskdpo.models import load_tokenizer
from maskdpo.schemas import WITHOUT_CLAIM, Annotation, Kind, Label, Prompt, Response, Sentence
from maskdpo.text.splitters import get_splitter

ANSWER = """# Paris

Paris lies on the Seine. It has 20 districts.

- The tower is 330 metres high.
- It was built in 1889.

## Rome

Rome lies on the Tiber. It has 7 hills."""
SPANS = get_splitter("markdown").split(ANSWER, "en")
PROMPT = Prompt(id="p", prompt="Which cities?", reference="Paris lies on the Seine. Rome lies on the Tiber.")


def read(tmp_path: Path, labelled: Sequence[int]) -> list[LabelledSentence]:
    """The answer where these of its spans are in the record."""
    sentences = [
        Sentence(**span._asdict(), label=Label.NO_FACT if span.kind in WITHOUT_CLAIM else Label.NO_HALLUCINATION)
        for span in (SPANS[i] for i in labelled)
    ]
    write_records(tmp_path / "p.jsonl", [PROMPT])
    write_records(tmp_path / "a.jsonl", [Annotation(id="a", prompt_id="p", response=ANSWER, sentences=sentences)])
    return read_examples([tmp_path / "a.jsonl"], [tmp_path / "p.jsonl"])[0]


@pytest.mark.parametrize("preceding", [0, 1, 3])
@pytest.mark.parametrize("labelled", [range(len(SPANS)), (3, 6), (1,)], ids=["all", "some", "first"])
def test_training_measuring_and_annotate_read_the_same(
    preceding: int, labelled: Sequence[int], tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from maskdpo.classifier import model

    tokenizer = load_tokenizer(tiny_model)
    config = TrainJudgeConfig(model=tiny_model, preceding=preceding, passages=1, max_length=1500)
    spec = new_spec("decoder", (Label.NO_HALLUCINATION, Label.HALLUCINATION), tokenizer, config)
    judge = Path(shutil.copytree(tiny_model, tmp_path / "judge"))
    write_spec(spec, judge)
    seen: list[str] = []
    scores = model.scores

    def watched(classifier: Any, items: Sequence[Encoded], batch_size: int) -> Any:
        seen.extend(tokenizer.decode(item.ids) for item in items)
        return scores(classifier, items, batch_size)

    monkeypatch.setattr(model, "scores", watched)
    examples = read(tmp_path, labelled)
    reader = Reader(spec, tokenizer)
    trained = [tokenizer.decode(reader.input(example).ids) for example in examples]
    judge_examples(by_classifier, str(judge), examples, "cpu")
    measured, seen[:] = list(seen), []
    list(
        annotate_responses(
            [PROMPT],
            [Response(id="a", prompt_id="p", response=ANSWER)],
            judge="classifier",
            model=str(judge),
            device="cpu",
        )
    )
    assert trained == measured
    assert [text for text in seen if text in trained] == trained
    if len(labelled) == len(SPANS):
        assert seen == trained
    assert not any("# Paris" in text for text in trained)
    assert ("The tower is 330 metres high.\n- It was built in 1889.\n\n## Rome" in "".join(trained)) == (
        preceding == 3 and len(labelled) > 1
    )


def test_the_kind_of_a_block_decides_what_is_filler(tmp_path: Path) -> None:
    """A list item of one word is no short remark."""
    sentence = Sentence(start=0, end=4, kind=Kind.LIST_ITEM, label=Label.NO_HALLUCINATION)
    write_records(tmp_path / "p.jsonl", [PROMPT])
    write_records(tmp_path / "a.jsonl", [Annotation(id="a", prompt_id="p", response="Iron", sentences=[sentence])])
    examples = read_examples([tmp_path / "a.jsonl"], [tmp_path / "p.jsonl"])[0]
    asked: list[Any] = []

    def score(judge: str, answers: Any, device: str | None) -> Any:
        asked.extend(answers)
        return None, [[(None, None)]]

    judge_examples(score, "judge", examples, None)
    assert [(span.kind, others) for _, _, (span,), others in asked] == [(Kind.LIST_ITEM, [])]
