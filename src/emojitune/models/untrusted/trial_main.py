"""The process of a trial: loads a model, then renders and encodes a text within limits.

Writes its verdict on standard output.

python -m emojitune.models.untrusted.trial_main FOLDER SECONDS BYTES
"""

import json
import sys
from pathlib import Path

from emojitune.dataset.example import Message
from emojitune.errors import ConversationError, ModelError
from emojitune.models.untrusted import limited_process
from emojitune.models.untrusted.limits import REFUSED

# What a tokenizer may multiply or search again and again: runs of each character of ASCII, and
# letters of other scripts. Published tokenizers encode it in milliseconds.
_PROBE = "".join(character * 64 for character in map(chr, range(9, 127))) + "éßøЖяλשعक中あ한🙂" * 64


def main(folder: Path, seconds: int, memory: int) -> None:
    """Load the model in `folder` and let it work on texts; the verdict is empty, or the error."""
    limited_process.limit_time(seconds)
    limited_process.yield_to_others()
    limited_process.limit_memory(memory)
    verdict = {}
    try:
        _load(folder)
    except ModelError as error:
        verdict = {"message": error.message, "code": error.code}
    sys.stdout.write(f"\n{json.dumps(verdict)}\n")


def _load(folder: Path) -> None:
    import torch

    from emojitune.models import loader
    from emojitune.models.backend import HFBackend, LlamaBackend, choose_backend
    from emojitune.models.linear import PackedLinear

    precision = loader.Precision(torch.device("cpu"), torch.bfloat16, "for a trial")
    match choose_backend(folder):
        case LlamaBackend() as backend:
            renderer = loader.load_llama(backend, precision, PackedLinear).renderer
        case HFBackend():
            renderer = loader.load_hf(folder, precision).renderer
    for work in (
        lambda: renderer.render_prompt([Message("user", "Hello.")]),
        lambda: renderer.encode_text(_PROBE),
    ):
        try:
            work()
        except ConversationError as error:
            if error.code == REFUSED:
                raise
            # The template may only want other messages, and the tokenizer another text.


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
