"""The process of a sandbox: a line of JSON for each request, and one for each reply.

Two lines set it up: the chat template with its special tokens, and the tokenizer. It ends with its
standard input, or at a limit of time or memory.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

from emojitune.models.untrusted import limited_process

MAX_MEMORY = 2**30
_MAX_START_SECONDS = 60.0
_MAX_TOKENS_OF_EACH = 32  # of a character: four bytes, and the longest of its normal forms
_MAX_ERROR_LENGTH = 400


def main() -> None:
    """Answer the requests on standard input."""
    limited_process.limit_time(_MAX_START_SECONDS)
    limited_process.limit_memory(MAX_MEMORY)
    setup = json.loads(sys.stdin.readline())
    code = _ForeignCode(setup, sys.stdin.readline())
    _reply({})
    for line in sys.stdin:
        limited_process.limit_time(setup["max_seconds"])
        try:
            reply = {"result": code.run(json.loads(line))}
        except MemoryError:
            raise
        except Exception as error:  # a template may raise anything, jinja's errors among them
            reply = {"error": str(error)[:_MAX_ERROR_LENGTH]}
        _reply(reply)


class _ForeignCode:
    """A chat template and a tokenizer."""

    def __init__(self, setup: Mapping[str, Any], tokenizer: str) -> None:
        from tokenizers import Tokenizer
        from transformers.utils.chat_template_utils import render_jinja_template

        self._render = render_jinja_template
        self._template = setup["template"]
        self._special_tokens = setup["special_tokens"]
        self._tokenizer = None
        if tokenizer.strip():
            self._tokenizer = Tokenizer.from_str(tokenizer)
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()

    def run(self, request: Mapping[str, Any]) -> str | list[int]:
        if "text" in request:
            return self._encode(request["text"], request["split_special_tokens"])
        (text,), _ = self._render(
            conversations=[request["turns"]],
            chat_template=self._template,
            add_generation_prompt=request["add_generation_prompt"],
            **self._special_tokens,
        )
        if len(text) > request["max_length"]:
            raise ValueError(f"its text has {len(text)} characters, above {request['max_length']}.")
        return str(text)

    def _encode(self, text: str, split_special_tokens: bool) -> list[int]:
        assert self._tokenizer is not None
        self._tokenizer.encode_special_tokens = split_special_tokens
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        if len(ids) > _MAX_TOKENS_OF_EACH * (len(text) + 1):
            raise ValueError(f"it makes {len(ids)} tokens of {len(text)} characters.")
        return ids


def _reply(reply: Mapping[str, Any]) -> None:
    limited_process.limit_time(0)
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
