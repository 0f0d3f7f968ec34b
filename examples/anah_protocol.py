"""Make a protocol folder for the published annotator opencompass/anah-v2 out of the prompts it was trained on.

The prompts stay where they are, in the ANAH repository (Apache-2.0):

    git clone https://github.com/open-compass/ANAH
    python examples/anah_protocol.py ANAH/eval/anah_v2/anahv2_prompt.py anah-v2
    maskdpo annotate ... --judge llm --protocol ./anah-v2 --backend openai --model opencompass/anah-v2 --api-base ...

The file is imported, so take it from where you trust it.
"""

import importlib.util
import sys
from pathlib import Path
from typing import Any

PROTOCOL = """\
# The three turns of opencompass/anah-v2 (ANAH-v2, arXiv 2407.04693). Its replies are free text.
asks: sentence
turns:
  - template: fact
    reply: text
    words: {<No Facts>: no_fact, <无事实>: no_fact, <Facts Present>: next, <有事实>: next}
  - template: reference
    reply: text
    words: {<No Reference Information>: unverifiable, <无参考信息>: unverifiable}
    otherwise: next
    evidence: true
    max_tokens: 512
  - template: hallucination
    reply: text
    words:
      <No Hallucination>: no_hallucination
      <无幻觉>: no_hallucination
      <Contradictory>: contradictory
      <矛盾>: contradictory
      <Unverifiable>: unverifiable
      <无法验证>: unverifiable
"""


def write_protocol(prompts_file: Path, folder: Path) -> None:
    """Have the repository's own functions fill in our placeholders instead of texts."""
    prompts = _imported(prompts_file)
    folder.mkdir(parents=True)
    (folder / "protocol.yaml").write_text(PROTOCOL, encoding="utf-8")
    question, reference, sentence, points = (
        "{{ question }}", "{{ reference }}", "{{ sentence }}", "{{ replies.reference }}",
    )  # fmt: skip
    for language in ("en", "zh"):
        (folder / language).mkdir()
        for name, text in {
            "fact": prompts.fact_check_prompt(question, sentence, language),
            "reference": prompts.reference_check_prompt(question, reference, sentence, language),
            "hallucination": prompts.hallucination_check_prompt(question, points, sentence, language),
        }.items():
            # Jinja takes one line break off the end of a template
            (folder / language / f"{name}.j2").write_text(text + "\n", encoding="utf-8")


def _imported(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location("anahv2_prompt", file)
    assert spec is not None and spec.loader is not None, f"{file} is no Python file"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/anah_protocol.py ANAH/eval/anah_v2/anahv2_prompt.py FOLDER")
    write_protocol(Path(sys.argv[1]), Path(sys.argv[2]))
