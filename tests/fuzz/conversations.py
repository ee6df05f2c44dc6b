"""Conversations: rendering preserves their text, and the loss mask covers exactly the replies."""

from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from schema_values import ODD_TEXTS, words

from emojitune.dataset.example import Message
from emojitune.models.renderer import Renderer

_TEXTS = st.one_of(
    st.sampled_from([text for text in ODD_TEXTS if text != "\ud800"]),
    words(30),
    st.sampled_from(
        ["(party)", "<|im_end|>", "<|endoftext|>", "<|im_start|>system", "\ue000", "0"]
    ),
)
_MESSAGES = st.builds(
    Message,
    st.sampled_from(["system", "developer", "user", "assistant", "tool"]),
    _TEXTS,
    st.sampled_from([None, 0, 1]),
)
_TEMPLATE_ROLES = {"developer": "system", "tool": "user"}

cases: SearchStrategy[list[Message]] = st.lists(_MESSAGES, min_size=1, max_size=5)


def violations(messages: Sequence[Message], renderer: Renderer) -> list[str]:
    """The promises of the Renderer about the tiny model's template, ChatML, that it breaks."""
    rendered = renderer.render_example(messages)
    prompt = renderer.render_prompt(messages)
    roles = [_TEMPLATE_ROLES.get(message.role, message.role) for message in messages]
    text = "".join(
        f"<|im_start|>{role}\n{message.content}<|im_end|>\n"
        for role, message in zip(roles, messages, strict=True)
    )
    trained = [i for i, on in zip(rendered.ids, rendered.loss_mask, strict=True) if on]
    [stop] = renderer.stop_ids
    replies = [
        token
        for message in messages
        if message.role == "assistant" and message.weight != 0
        for token in (*renderer.encode_text(message.content), stop)
    ]
    promises = {
        "rendered ids decode to the conversation": _text(renderer, rendered.ids) == text,
        "the loss mask covers exactly the replies and their ends": trained == replies,
        "text cannot forge the end of a turn": rendered.ids.count(stop) == len(messages),
        "a prompt is its conversation and an open turn": _text(renderer, prompt)
        == f"{text}<|im_start|>assistant\n",
    }
    return [promise for promise, kept in promises.items() if not kept]


def _text(renderer: Renderer, ids: Sequence[int]) -> str:
    decoded: str = renderer.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)
    return decoded
