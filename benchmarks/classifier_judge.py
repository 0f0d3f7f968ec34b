"""Sentences per second of the ``classifier`` judge, by the shape of its model, beside the ``llm`` judge.

The models have random weights, so this says what judging costs and nothing about labels. Texts are pages of docs/; the
tokenizer is that of SmolLM2, whose tokens are about as long as those of the shapes' own tokenizers.

Run: OMP_NUM_THREADS=2 python benchmarks/classifier_judge.py   (docs/classifiers.md has a shorter run)
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as T
from tokenizers import processors

from maskdpo.annotate.judge import Task
from maskdpo.annotate.judges.classifier import ClassifierJudge, ClassifierOptions
from maskdpo.annotate.judges.llm import LLMJudge, LLMOptions, llm_judge
from maskdpo.backends.settings import BackendSettings
from maskdpo.backends.transformers_backend import TransformersBackend
from maskdpo.classifier.spec import ClassifierSpec, write_spec
from maskdpo.models import load_tokenizer
from maskdpo.schemas import Prompt, Response
from maskdpo.text.passages import split_sentences
from maskdpo.text.splitters import get_splitter

DOCS = Path(__file__).parents[1] / "docs"
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
PAIR = {
    "head": "sequence-classification",
    "input": {"text": "{reference}", "pair": "{sentence}"},
    "labels": [{"label": "hallucination"}, {"label": "no_hallucination"}],
    "max_length": 512,
    "chunk": {"size": 400, "unit": "tokens"},
}
NEXT_WORD = PAIR | {
    "head": "likelihood",
    "input": {"text": "{reference}\n\nIs this supported? {sentence}\nAnswer:"},
    "labels": [{"label": "hallucination", "token": "Ġno"}, {"label": "no_hallucination", "token": "Ġyes"}],
}
CHAT = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


@dataclass(frozen=True)
class Shape:
    """A model with random weights."""

    name: str
    vocabulary: int
    make: Callable[..., T.PreTrainedModel]
    """Of the sizes and of ``vocab_size``."""
    sizes: dict[str, int]
    spec: dict[str, Any] | None = None
    """None: for the ``llm`` judge."""


def _deberta(**sizes: int) -> T.PreTrainedModel:
    config = T.DebertaV2Config(
        **sizes, relative_attention=True, position_buckets=256, pos_att_type=["p2c", "c2p"], type_vocab_size=0,
        share_att_key=True, norm_rel_ebd="layer_norm", position_biased_input=False, max_position_embeddings=512,
        pooler_hidden_size=sizes["hidden_size"], pad_token_id=0,
    )  # fmt: skip
    return T.DebertaV2ForSequenceClassification(config)


def _sizes(hidden: int, inner: int, layers: int, heads: int) -> dict[str, int]:
    values = (hidden, inner, layers, heads)
    return dict(
        zip(("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"), values, strict=True)
    )


def _qwen(**sizes: int) -> T.PreTrainedModel:
    heads = 2 if sizes["num_attention_heads"] > 2 else 1
    return T.Qwen2ForCausalLM(
        T.Qwen2Config(**sizes, num_key_value_heads=heads, tie_word_embeddings=True, max_position_embeddings=8192)
    )


SHAPES = (
    Shape(
        "MiniLM-L6",
        30_522,
        lambda **sizes: T.BertForSequenceClassification(T.BertConfig(**sizes)),
        _sizes(384, 1536, 6, 12),
        PAIR,
    ),
    Shape("DeBERTa-v3-base", 128_100, _deberta, _sizes(768, 3072, 12, 12), PAIR),
    Shape("DeBERTa-v3-large", 128_100, _deberta, _sizes(1024, 4096, 24, 16), PAIR),
    Shape("Qwen2.5-0.5B, likelihood", 151_936, _qwen, _sizes(896, 4864, 24, 14), NEXT_WORD),
    Shape("Qwen2.5-0.5B, llm yes-no", 151_936, _qwen, _sizes(896, 4864, 24, 14)),
)


def save(shape: Shape, words: T.PreTrainedTokenizerBase, folder: Path, tiny: bool) -> int:
    """The model as a folder; the number of its parameters."""
    sizes = TINY if tiny else shape.sizes
    if shape.spec is PAIR:
        words = copy.deepcopy(words)
        end = words.convert_ids_to_tokens(0)
        words.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{end} $A {end}", pair=f"{end} $A {end} $B {end}", special_tokens=[(end, 0)]
        )
    torch.manual_seed(0)
    model = shape.make(**sizes, vocab_size=max(len(words), 0 if tiny else shape.vocabulary))
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    if shape.spec is not None:
        write_spec(ClassifierSpec.model_validate(shape.spec), folder)
    return int(model.num_parameters())


def tasks(answers: int, sentences: int, words: int) -> list[Task]:
    """Answers of so many sentences beside references of so many words, all of them different texts."""
    text = "\n\n".join(page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("*.md")))
    prose = [" ".join(line.split()) for line in split_sentences(text) if 40 < len(line) < 400 and "|" not in line]
    stream = _endless(prose)
    splitter, made = get_splitter("markdown"), []
    for n in range(answers):
        reference: list[str] = []
        while sum(len(part.split()) for part in reference) < words:
            reference.append(next(stream))
        answer = " ".join(next(stream) for _ in range(sentences))
        prompt = Prompt(id=f"p{n}", prompt="What is this about?", reference=" ".join(reference))
        response = Response(id=f"r{n}", prompt_id=prompt.id, response=answer)
        made.append(Task(prompt, response, splitter.split(answer, "en")))
    return made


def _endless(prose: list[str]) -> Iterator[str]:
    while True:
        yield from prose


def measure(judge: ClassifierJudge | LLMJudge, asked: list[Task]) -> tuple[float, float, int]:
    """Sentences per second after one answer to warm up; calls and tokens per sentence."""
    list(judge.judge(asked[:1]))
    before = judge.usage.calls, judge.usage.prompt_tokens
    start = time.perf_counter()
    done = sum(len(verdicts) for _, verdicts in judge.judge(asked[1:]))
    seconds = time.perf_counter() - start
    calls, tokens = judge.usage.calls - before[0], judge.usage.prompt_tokens - before[1]
    return done / seconds, round(calls / done, 1), round(tokens / done)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=5, help="the first one warms up")
    parser.add_argument("--sentences", type=int, default=6, help="per answer")
    parser.add_argument("--words", type=int, default=900, help="per reference")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--tiny", action="store_true", help="shapes of a few thousand weights, to try this script")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    words = load_tokenizer("smollm2")
    words.chat_template = CHAT
    asked = tasks(args.answers, args.sentences, args.words)
    settings = BackendSettings(batch_size=args.batch_size, dtype=args.dtype, device=args.device)
    print(f"{args.threads} threads, {args.device}, {args.dtype}; references of {args.words} words\n")
    print("| shape | parameters | chunks | sentences/s | calls per sentence | tokens per sentence |")
    print("|---|---|---|---|---|---|")
    for shape in SHAPES:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            size = save(shape, words, folder, args.tiny)
            for chunks in (None, 2) if shape.spec else (2,):
                if shape.spec:
                    judge: ClassifierJudge | LLMJudge = ClassifierJudge(
                        str(folder), settings, ClassifierOptions(chunks=chunks)
                    )
                else:
                    judge = llm_judge(TransformersBackend(str(folder), settings), LLMOptions(protocol="yes-no"))
                rate, calls, tokens = measure(judge, asked)
                print(
                    f"| {shape.name} | {size / 1e6:.0f}M | {chunks or 'all'} | {rate:.2f} | {calls} | {tokens} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
