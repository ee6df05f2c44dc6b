"""How far the fast paths are from plain float32: `python -m benchmarks.agreement`.

On the default base model. Training: loss and gradients of a batch, with an adapter of noise. Chat:
log-probabilities behind validation prompts and along their replies. Replies: the chosen label,
against the best of all labels; both with an adapter tuned here for an epoch, or one given. The
reference is transformers in float32 with PEFT, an example at a time (reference.py); the same
modules in bf16 show what the numbers lose, and what is left is lost by the way.
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
from benchmarks.reference import Plain
from emojitune.dataset.statistics import closed_vocabulary
from emojitune.dataset.validation import load_examples
from emojitune.models import loader
from emojitune.models.loader import Precision
from emojitune.models.renderer import RenderedExample

TRAIN, VALID = Path("data/emoji_ft_train.jsonl"), Path("data/emoji_ft_valid.jsonl")
NOISE = 0.02  # about what B sides hold after an epoch

PLAIN = {"transformers, bf16": torch.bfloat16}


def ours() -> dict[str, Precision]:
    """Our ways, on the processor and, where there is one, on a GPU."""
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
    """Each way's loss and gradients of a batch, beside the reference's."""
    expected = Plain(base, adapter, torch.float32).gradients(examples)
    found = {n: fast_paths.gradients(base, adapter, d, examples) for n, d in ours().items()}
    found |= {n: Plain(base, adapter, d).gradients(examples) for n, d in PLAIN.items()}
    return {name: differences.of_training(one, expected) for name, one in found.items()}


def chat(
    base: Path, adapter: Path, prompts: Prompts
) -> tuple[dict[str, OfChat], dict[str, OfReplies]]:
    """Each way's log-probabilities and chosen labels, beside the reference's."""
    reference = Plain(base, adapter, torch.float32)
    expected, joints = reference.log_probabilities(prompts), reference.joints(prompts)
    said: dict[str, OfChat] = {}
    chosen: dict[str, OfReplies] = {}
    ways = {n: partial(Chat, base, adapter, d) for n, d in ours().items()}
    ways |= {n: partial(Plain, base, adapter, d) for n, d in PLAIN.items()}
    for name, make in ways.items():
        way = make()
        said[name] = differences.of_chat(way.log_probabilities(prompts), expected)
        chosen[name] = differences.of_replies(way.chosen(prompts), joints)
    return said, chosen


def table(
    trained: dict[str, OfTraining], said: dict[str, OfChat], chosen: dict[str, OfReplies]
) -> Table:
    """A row for each way: shares of the reference's loss and gradient norm, then nats."""
    names = (
        "off float32 by",
        "loss",
        "gradient",
        "log-probs",
        "likeliest",
        "same label",
        "else by",
    )
    shown = Table(*names, box=box.SIMPLE)
    for name, trained_off in trained.items():
        log_probs, replies = said[name], chosen[name]
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
    renderer = loader.load(base, fast_paths.precision(torch.float32)).renderer
    examples = load_examples(TRAIN)
    batch = [renderer.render_example(e.messages) for e in examples[: given.batch]]
    prompts = Prompts.of(
        load_examples(VALID)[: given.prompts], closed_vocabulary(examples), renderer
    )
    with TemporaryDirectory() as folder:
        noise = adapters.noisy(base, Path(folder) / "noise", std=NOISE)
        trained = training(base, noise, batch)
        tuned = given.adapter or adapters.tuned(base, Path(folder) / "tuned", TRAIN)
        said, chosen = chat(base, tuned, prompts)
    console.print(table(trained, said, chosen))
    rows = {
        name: asdict(trained[name]) | {"chat": asdict(said[name]), "replies": asdict(chosen[name])}
        for name in trained
    }
    counts = {"batch": given.batch, "prompts": given.prompts}
    report.write(given.json, console, {"machine": before, **counts, "rows": rows})


if __name__ == "__main__":
    main()
