import gc
import os
from pathlib import Path

import pytest
from tokenizers import Regex, normalizers, pre_tokenizers

from emojitune.errors import ConversationError
from emojitune.models import loader
from emojitune.models.untrusted.sandbox import Sandbox

TURNS = [{"role": "user", "content": "\ue0000\ue001"}]
# Each is stopped from outside: within one call of C, or by what grows without a single large step.
ENDLESS = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "number": "{{ 10 ** (10 ** 10) }}",
}
LARGE = {
    "string": "{{ 'a' * 10 ** 10 }}",
    "doubling": "{% set ns = namespace(x='a' * 99) %}"
    "{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
}


def render(sandbox: Sandbox, max_length: int = 1000) -> str:
    return sandbox.render(TURNS, add_generation_prompt=True, max_length=max_length)


@pytest.mark.parametrize("template", ENDLESS.values(), ids=ENDLESS)
def test_an_endless_template_ends(template: str) -> None:
    sandbox = Sandbox(template, {}, None, max_seconds=0.2)
    with pytest.raises(ConversationError, match=r"takes longer than 0\.2 seconds\. Use another"):
        render(sandbox)


@pytest.mark.parametrize("template", LARGE.values(), ids=LARGE)
def test_a_template_gets_no_more_than_its_memory(template: str) -> None:
    with pytest.raises(ConversationError, match="needs more memory than 1024 MiB"):
        render(Sandbox(template, {}, None))


def test_what_a_template_raises_is_its_reason_and_the_next_call_is_answered() -> None:
    sandbox = Sandbox(
        "{% if add_generation_prompt %}{{ raise_exception('Not so.') }}{% endif %}"
        "{{ bos_token }}{{ messages[0].content | upper }}",
        {"bos_token": "<s>"},
        None,
    )
    with pytest.raises(ValueError, match=r"^Not so\.$"):
        render(sandbox)
    with pytest.raises(ValueError, match="has 6 characters, above 5"):
        sandbox.render(TURNS, add_generation_prompt=False, max_length=5)
    text = sandbox.render(TURNS, add_generation_prompt=False, max_length=1000)
    assert text == "<s>\ue0000\ue001"


def test_a_template_that_exceeded_a_limit_is_refused_at_once_for_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    sandbox = Sandbox(LARGE["string"], {}, None)
    with pytest.raises(ConversationError):
        render(sandbox)
    with monkeypatch.context() as patch:
        patch.setattr("subprocess.Popen", None)  # no other process is started
        with pytest.raises(ConversationError, match="needs more memory"):
            render(sandbox)
    now = 61.0
    with pytest.raises(ConversationError, match="needs more memory"):
        render(sandbox)
    assert sandbox._process is None


def test_a_tokenizer_that_fails_ends_its_own_process_only(tiny_base: Path) -> None:
    tokenizer = loader.load_renderer(tiny_base).tokenizer.backend_tokenizer
    expected = tokenizer.encode("xx (party)", add_special_tokens=False).ids
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex("(x+x+)+y"), "isolated"), tokenizer.pre_tokenizer]
    )
    sandbox = Sandbox("", {}, tokenizer.to_str())
    with pytest.raises(ConversationError, match="it fails"):
        sandbox.encode("x" * 1000, split_special_tokens=True)
    assert sandbox.encode("xx (party)", split_special_tokens=True) == expected


def test_a_tokenizer_may_not_multiply_the_text(tiny_base: Path) -> None:
    tokenizer = loader.load_renderer(tiny_base).tokenizer.backend_tokenizer
    doubling = [normalizers.Replace("a", "aa")] * 10
    tokenizer.normalizer = normalizers.Sequence(doubling)
    sandbox = Sandbox("", {}, tokenizer.to_str())
    with pytest.raises(ValueError, match="makes 1024 tokens of 1 characters"):
        sandbox.encode("a", split_special_tokens=True)


def test_a_process_ends_with_its_sandbox() -> None:
    sandbox = Sandbox("a", {}, None)
    assert render(sandbox) == "a"
    assert sandbox._process is not None
    process = sandbox._process.pid
    del sandbox
    gc.collect()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
