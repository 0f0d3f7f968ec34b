"""What several test modules need: nothing from the Hub, JSONL files, a model folder that costs nothing, a browser."""

import functools
import gc
import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from browser import CHROMIUM, DRIVER, MISSING, Browser, chromium

from maskdpo import console

os.environ["HF_HUB_OFFLINE"] = "1"
# A background job may start us with SIGINT ignored, and children inherit that: Ctrl-C tests would never end.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Each call of the application in this process would build all its commands anew, in a tenth of a second.
typer.main.get_command = functools.cache(typer.main.get_command)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest modules first, so that no process of several has one left when the others are done."""
    items.sort(key=lambda item: item.path.parent.name != "train")


CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = (
    "The river Thames flows through London, and the river Seine through Paris.",
    "supported contradicted unverifiable no_fact no_hallucination yes yesterday no nothing",
    "Which city does the river cross? It crosses Paris. 你好，世界。 Zürich, naïve, 😀.",
)


def freeze_heap() -> None:
    """Have collections pass over all that has been imported so far: with torch and its kin each takes half a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def small_heap() -> None:
    freeze_heap()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random Llama of 2 layers with a byte-level tokenizer trained on the spot, as a model folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=340, special_tokens=special, initial_alphabet=alphabet)
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|endoftext|>", bos_token="<|im_start|>"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.4,  # wide, so that the most probable token is not a matter of rounding
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    folder = tmp_path_factory.mktemp("tiny-model")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    freeze_heap()
    return str(folder)


@pytest.fixture(autouse=True)
def mostly_no_curves(request: pytest.FixtureRequest) -> None:
    """A training of the tiny model draws no picture, which would take longer than its few steps."""
    if "tiny_model" in request.fixturenames and not request.node.get_closest_marker("curves"):
        monkeypatch = request.getfixturevalue("monkeypatch")
        monkeypatch.setattr("maskdpo.train.run.record.draw_curves", lambda file, steps, evals: None)


WriteJsonl = Callable[[str, Iterable[Any]], Path]


@pytest.fixture
def jsonl(tmp_path: Path) -> WriteJsonl:
    """Write a JSONL file into the test's folder: dicts as JSON, strings and bytes as they are."""

    def write(name: str, rows: Iterable[Any]) -> Path:
        file = tmp_path / name
        lines = (row if isinstance(row, str | bytes) else json.dumps(row, ensure_ascii=False) for row in rows)
        file.write_bytes(b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines))
        return file

    return write


@pytest.fixture(scope="session")
def shared_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if not (CHROMIUM and DRIVER):
        pytest.skip(MISSING)
    pytest.importorskip("selenium", reason="needs selenium: pip install selenium")
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(shared_browser: Browser) -> Iterator[Browser]:
    """No test may leave an error or a policy violation in the console, nor have asked anybody but its own server."""
    shared_browser.complaints()
    yield shared_browser
    assert shared_browser.complaints() == []
    asked = "return performance.getEntriesByType('resource').filter(one => !one.name.startsWith(location.origin + '/'))"
    assert shared_browser.js(asked) == []


@pytest.fixture(autouse=True)
def _settings_by_their_names_in_python() -> Iterator[None]:
    """A command that a test has run leaves behind how it spells settings, as the process ends with a command."""
    yield
    console.call_settings({})
