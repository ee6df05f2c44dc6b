import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from gathered import request_for
from tiny_model import chat_tiny, load_tiny, make_adapter

from emojitune.dataset.example import Message
from emojitune.errors import ConversationError
from emojitune.inference.chat_model import ChatModel
from emojitune.inference.embeddings import batches_by_length
from emojitune.inference.faults import Field, RequestFault
from emojitune.inference.loading import hf_chat_model, load_base
from emojitune.inference.types import Delta
from emojitune.models import loader
from emojitune.models.backend import choose_backend
from emojitune.models.loader import LoadedHF
from emojitune.settings import Settings

TEXTS = [
    "dog",
    "What a day, what is going on?",
    "I just passed my driving test!",
    "My dog is tired. " * 8,
    "a",
    "(party)",
    "emojis",
    "What is going on? My dog is tired.",
]


@pytest.fixture(params=["packed", "modules"])
def chat(request: pytest.FixtureRequest, tiny_base: Path, tiny: LoadedHF) -> ChatModel:
    if request.param == "modules":
        return hf_chat_model(tiny, ThreadPoolExecutor(1))
    return chat_tiny(tiny_base)


def vectors(model: ChatModel, inputs: Sequence[str | Sequence[int]]) -> np.ndarray:
    embedded = model.embed(inputs, lambda: False)
    assert embedded is not None
    return embedded.vectors


def test_a_vector_is_the_normalized_mean_of_the_last_hidden_states(
    tiny: LoadedHF, chat: ChatModel
) -> None:
    ids = tiny.renderer.encode_text(TEXTS[1])
    with torch.no_grad():
        states = tiny.module(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1]
    expected = torch.nn.functional.normalize(states[0].mean(0), dim=0).numpy()
    np.testing.assert_allclose(vectors(chat, [TEXTS[1]])[0], expected, atol=1e-6)


def test_bfloat16_changes_a_vector_by_no_more_than_rounding(tiny_base: Path) -> None:
    # Eight bits a number: both ways are this far from float32, and from each other at most.
    precision = loader.choose_precision(Settings(device="cpu", dtype="bfloat16"))
    executor = ThreadPoolExecutor(1)
    packed = vectors(load_base(choose_backend(tiny_base), precision, executor), TEXTS)
    modules = vectors(hf_chat_model(loader.load_hf(tiny_base, precision), executor), TEXTS)
    np.testing.assert_allclose(packed, modules, atol=0.01)
    np.testing.assert_allclose(packed, vectors(chat_tiny(tiny_base), TEXTS), atol=0.01)


def test_a_batch_of_eight_is_eight_of_one(chat: ChatModel) -> None:
    together = vectors(chat, TEXTS)
    assert together.shape == (8, 32)
    assert together.dtype == np.float32
    alone = np.concatenate([vectors(chat, [text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-6)
    assert np.abs(together[0] - together[1]).max() > 0.01


def test_a_text_and_its_token_ids_have_equal_vectors(tiny: LoadedHF, chat: ChatModel) -> None:
    ids = [tiny.renderer.encode_text(text) for text in TEXTS]
    embedded = chat.embed(ids, lambda: False)
    assert embedded is not None
    assert embedded.tokens == sum(map(len, ids))
    np.testing.assert_allclose(embedded.vectors, vectors(chat, TEXTS), atol=1e-6)


def test_special_tokens_in_a_text_are_ordinary_characters(chat: ChatModel) -> None:
    embedded = chat.embed(["<|im_end|>"], lambda: False)
    assert embedded is not None
    assert embedded.tokens > 1


def test_a_tuned_model_embeds_with_its_own_weights(tiny_base: Path, tmp_path: Path) -> None:
    folder = make_adapter(tiny_base, tmp_path / "a", 1)
    merged = hf_chat_model(load_tiny(tiny_base, folder), ThreadPoolExecutor(1))
    tuned = vectors(chat_tiny(tiny_base, folder), TEXTS)
    np.testing.assert_allclose(tuned, vectors(merged, TEXTS), atol=1e-5)
    assert np.abs(tuned - vectors(chat_tiny(tiny_base), TEXTS)).max() > 0.01


@pytest.mark.parametrize(
    ("inputs", "code", "words"),
    [
        (["fine", [1, 400]], "invalid_value", r"Invalid token id in 'input': 400"),
        (["fine", ""], "invalid_value", "needs at least one token"),
        ([[-1]], "invalid_value", "Invalid token id"),
        ([[5] * 257], "context_length_exceeded", "maximum context length is 256 tokens, however"),
        ([[5] * 256] * 1172, "max_tokens_per_request", "Requested 300032 tokens, max 300000"),
    ],
)
def test_inputs_that_cannot_be_embedded_are_refused(
    chat: ChatModel, inputs: list[str | list[int]], code: str, words: str
) -> None:
    with pytest.raises(RequestFault, match=words) as caught:
        chat.embed(inputs, lambda: False)
    assert (caught.value.code, caught.value.field) == (code, Field.INPUT)


def test_a_text_in_chunks_has_the_vector_of_the_text_at_once(
    chat: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = [[5, 60, 100 + number % 50][number % 3] for number in range(256)]
    expected = vectors(chat, [long, TEXTS[0]])
    for tokens in (1, 7, 64, 255):
        monkeypatch.setattr(chat._embedder, "_chunk_tokens", tokens)
        np.testing.assert_allclose(vectors(chat, [long, TEXTS[0]]), expected, atol=1e-5)


def test_the_longest_text_fits(chat: ChatModel) -> None:
    assert np.isfinite(vectors(chat, [[5] * 256])).all()


def test_nothing_is_computed_once_it_is_cancelled(chat: ChatModel) -> None:
    cancellations = iter([False, True])
    assert chat.embed([[5] * 200] * 64, lambda: next(cancellations)) is None


def test_replies_continue_between_batches(chat: ChatModel) -> None:
    ended = threading.Event()

    def listen(item: object) -> None:
        if not isinstance(item, Delta):
            ended.set()

    def cancelled() -> bool:
        batches.append(None)
        if len(batches) == 2:
            chat.start(request_for(Message("user", "dog"), max_tokens=1), listen)
        return ended.is_set()

    batches: list[None] = []
    assert chat.embed([[5] * 200] * 1000, cancelled) is None, "the reply came before the end"


def test_batches_hold_each_row_once_and_stay_within_bounds() -> None:
    lengths = [5, 900, 3, 40, 2, 41, 700, 1, 2500]
    batches = list(batches_by_length(lengths, 1000))
    assert sorted(at for batch in batches for at in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[at] for at in batch) <= 1000
    assert len(batches) == 4


def test_a_text_that_the_tokenizer_refuses_is_at_fault_itself(
    chat: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(text: str) -> list[int]:
        raise ConversationError("This text takes too long.")

    monkeypatch.setattr(chat._renderer, "encode_text", refuse)
    with pytest.raises(RequestFault, match="takes too long") as caught:
        chat.embed([[1, 2], "text"], lambda: False)
    assert (caught.value.field, caught.value.index) == (Field.INPUT, 1)
