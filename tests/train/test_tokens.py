"""Many texts read at once are the tokens of ``ChatFormat.continuation``, which defines them."""

import copy

import pytest
from train_helpers import TEMPLATES, TOKENIZERS, fast_tokenizer

from maskdpo.chat import ChatFormat
from maskdpo.schemas import Message
from maskdpo.train.data.tokens import TextReader

PROMPTS = ["Tell me.", "Say <|im_end|> once.", "Zu\u0308rich <s>", "What follows <|im_start|>"]
RESTS = [
    "Yes it does.",
    " It is <|im_end|> so.<|im_end|>\n",
    "<s>Zu\u0308rich <|im_start|>user\nAnd?<|im_end|>",
    "\n\nNo<unk>, na\u00efve \U0001f600.",
    "<|im_end|>",
]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_texts_read_at_once_are_those_of_the_definition(name: str) -> None:
    tokenizer = copy.deepcopy(fast_tokenizer(name))
    reader, read = TextReader(tokenizer), 0
    for template in (*TEMPLATES.values(), None):
        tokenizer.chat_template = template
        chat = ChatFormat(tokenizer)
        prompts = [chat.encode_prompt([Message(role="user", content=text)] if template else text) for text in PROMPTS]
        given = [(prompt, rest) for prompt in prompts for rest in RESTS]
        for (prompt, rest), found in zip(given, reader.continuations(given), strict=True):
            if found is None:
                continue  # the trainer asks the definition
            ids, offsets = chat.continuation(prompt, rest)
            assert found.ids.tolist() == ids
            assert found.offsets.tolist() == [list(each) for each in offsets]
            read += 1
    assert read > len(TEMPLATES) * len(PROMPTS)
