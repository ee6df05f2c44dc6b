"""The error of the fast paths against float32: `python -m benchmarks.agreement`.

On the default base model. Training: loss and gradients of a batch, with an adapter of noise. Chat:
log-probabilities after validation prompts and along their replies. Replies: the chosen label,
against the best of all labels; both with an adapter tuned here for an epoch, or one given. The
reference is transformers in float32 with PEFT, an example at a time (reference.py); the same
modules in bf16 show the error of the number format, and the rest is the error of the fast path.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import adapters, differences, fast_paths, machine, report
from benchmarks.contenders import BATCH, base_model
from benchmarks.differences import OfChat, OfReplies, OfTraining
from benchmarks.fast_paths import Chat
from benchmarks.prompts import Prompts
from benchmarks.reference import ReferenceModel
from emojitune.dataset.statistics import closed_vocabulary
from emojitune.dataset.validation import load_examples
from emojitune.models import loader
from emojitune.models.loader import Precision
from emojitune.models.renderer import RenderedExample

TRAIN, VALID = Path("data/emoji_ft_train.jsonl"), Path("data/emoji_ft_valid.jsonl")
NOISE = 0.02  # about what B sides hold after an epoch

PLAIN = {"transformers, bf16": torch.bfloat16}


def ours() -> dict[str, Precision]:
    """Our precisions, on the processor and, where there is one, on a GPU."""
    numbers = {"bf16": torch.bfloat16, "float32": torch.float32}
    found = {f"emojitune, {n}": fast_paths.precision(d) for n, d in numbers.items()}
    if torch.cuda.is_available():
        found |= {
            f"emojitune, {n} on CUDA": fast_paths.precision(d, "cuda") for n, d in numbers.items()
        }
    return found


def training(
    base: Path, adapter: Path, examples: Sequence[RenderedExample]
) -> dict[str, OfTraining]:
    """The errors of each implementation in loss and gradients of a batch."""
    expected = ReferenceModel(base, adapter, torch.float32).gradients(examples)
    found = {n: fast_paths.gradients(base, adapter, d, examples) for n, d in ours().items()}
    found |= {n: ReferenceModel(base, adapter, d).gradients(examples) for n, d in PLAIN.items()}
    return {name: differences.of_training(one, expected) for name, one in found.items()}


def chat(
    base: Path, adapter: Path, prompts: Prompts
) -> tuple[dict[str, OfChat], dict[str, OfReplies]]:
    """The errors of each implementation in log-probabilities and chosen labels."""
    reference = ReferenceModel(base, adapter, torch.float32)
    expected, joints = reference.log_probabilities(prompts), reference.joints(prompts)
    logprobs: dict[str, OfChat] = {}
    chosen: dict[str, OfReplies] = {}
    implementations = {n: partial(Chat, base, adapter, d) for n, d in ours().items()}
    implementations |= {n: partial(ReferenceModel, base, adapter, d) for n, d in PLAIN.items()}
    for name, make in implementations.items():
        model = make()
        logprobs[name] = differences.of_chat(model.log_probabilities(prompts), expected)
        chosen[name] = differences.of_replies(model.chosen(prompts), joints)
    return logprobs, chosen


def table(
    trained: dict[str, OfTraining], logprobs: dict[str, OfChat], chosen: dict[str, OfReplies]
) -> Table:
    """A row for each implementation: shares of the reference's loss and gradient, then nats."""
    names = (
        "error against float32",
        "loss",
        "gradient",
        "log-probs",
        "top token",
        "same label",
        "label gap",
    )
    shown = Table(*names, box=box.SIMPLE)
    for name, trained_off in trained.items():
        log_probs, replies = logprobs[name], chosen[name]
        shown.add_row(
            name,
            f"{trained_off.loss:.4%}",
            f"{trained_off.gradient:.4%}",
            f"{log_probs.mean:.5f}",
            f"{log_probs.first:.5f}",
            f"{replies.equal} of {replies.prompts}",
            f"≤ {max(replies.behind):.2f}" if replies.behind else "–",
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--adapter", type=Path, help="an adapter's folder, instead of tuning one")
    parser.add_argument("--json", type=Path, default=report.RESULTS / "agreement.json")
    given = parser.parse_args()
    console, before, base = Console(), machine.state(), base_model()
    renderer = loader.load_hf(base, fast_paths.precision(torch.float32)).renderer
    examples = load_examples(TRAIN)
    batch = [renderer.render_example(e.messages) for e in examples[: given.batch]]
    prompts = Prompts.of(
        load_examples(VALID)[: given.prompts], closed_vocabulary(examples), renderer
    )
    with TemporaryDirectory() as folder:
        noise = adapters.noisy(base, Path(folder) / "noise", std=NOISE)
        trained = training(base, noise, batch)
        tuned = given.adapter or adapters.tuned(base, Path(folder) / "tuned", TRAIN)
        logprobs, chosen = chat(base, tuned, prompts)
    console.print(table(trained, logprobs, chosen))
    rows = {
        name: asdict(trained[name])
        | {"chat": asdict(logprobs[name]), "replies": asdict(chosen[name])}
        for name in trained
    }
    counts = {"batch": given.batch, "prompts": given.prompts}
    report.write(given.json, console, {"machine": before, **counts, "rows": rows})


if __name__ == "__main__":
    main()
