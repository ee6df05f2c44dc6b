"""One contender, one process: `python -m benchmarks.contenders NAME BASE FILE STEPS STARTED`.

Each trains the base model in the folder BASE with LoRA of the same rank on all linear layers, from
the same file, in batches of 16, and prints one line of JSON: when it was at its first step, how
long each step took, and the most memory it held, a GPU's where there is one. The process
that starts it passes the time, so that imports count.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.processes import say

BATCH = 16
RANK = 16
LEARNING_RATE = 2e-4
CONTEXT = 2048


def emojitune(base: Path, file: Path, steps: int, folder: Path) -> Iterator[float]:
    """The loop that jobs run."""
    from emojitune.dataset.validation import load_examples
    from emojitune.jobs.memory_check import MemoryCheck
    from emojitune.models import loader
    from emojitune.models.adapter import AdapterInfo
    from emojitune.settings import Settings
    from emojitune.training.batches import truncate
    from emojitune.training.checkpoint import CheckpointFolder
    from emojitune.training.config import TrainingConfig
    from emojitune.training.events import StepCompleted
    from emojitune.training.loop import train

    precision = loader.choose_precision(Settings())
    model = loader.load_for_training(base, precision)
    config = TrainingConfig(
        epochs=1,
        batch_size=BATCH,
        learning_rate=LEARNING_RATE,
        rank=RANK,
        alpha=2.0 * RANK,
        seed=1,
        max_tokens=CONTEXT,
    )
    config = MemoryCheck(base, precision).with_row_tokens(config)
    rendered = [model.renderer.render_example(e.messages) for e in load_examples(file)]
    examples = [truncate(example, CONTEXT) for example in rendered]
    info = AdapterInfo("base", rank=RANK, alpha=2.0 * RANK)
    for event in train(model, precision.device, examples, config, CheckpointFolder(folder, info)):
        if isinstance(event, StepCompleted):
            yield _now()
            if event.step == steps:
                return


def trainer(base: Path, file: Path, steps: int, folder: Path) -> Iterator[float]:
    """transformers' Trainer with PEFT, optimized: bf16, no gradient checkpointing."""
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

    from emojitune.dataset.validation import load_examples
    from emojitune.models.renderer import Renderer

    renderer = Renderer(AutoTokenizer.from_pretrained(base), stop_ids=())
    rows = []
    for example in load_examples(file):
        rendered = renderer.render_example(example.messages)
        labels = [
            token if learned else -100
            for token, learned in zip(rendered.ids, rendered.loss_mask, strict=True)
        ]
        rows.append({"input_ids": rendered.ids, "labels": labels})

    def collate(batch: list[dict[str, Any]]) -> dict[str, Any]:
        longest = max(len(row["input_ids"]) for row in batch)
        return {
            name: torch.tensor([[*row[of], *[fill] * (longest - len(row[of]))] for row in batch])
            for name, of, fill in (("input_ids", "input_ids", 0), ("labels", "labels", -100))
        } | {
            "attention_mask": torch.tensor(
                [
                    [1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"]))
                    for row in batch
                ]
            )
        }

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    model = get_peft_model(model, _lora())
    arguments = TrainingArguments(
        str(folder), max_steps=steps, bf16=True, gradient_checkpointing=False, **_arguments()
    )
    yield from _step_ends(
        lambda callbacks: Trainer(
            model,
            arguments,
            data_collator=collate,
            train_dataset=rows,
            callbacks=callbacks,
        )
    )


def trl_default(base: Path, file: Path, steps: int, folder: Path) -> Iterator[float]:
    """TRL's SFTTrainer, defaults: a base model's name, a chat dataset, a LoRA configuration."""
    from datasets import load_dataset
    from trl import SFTConfig, SFTTrainer

    rows = load_dataset("json", data_files=str(file), split="train", cache_dir=str(folder))
    arguments = SFTConfig(str(folder), max_steps=steps, **_arguments())
    yield from _step_ends(
        lambda callbacks: SFTTrainer(
            str(base),
            args=arguments,
            train_dataset=rows,
            peft_config=_lora(),
            callbacks=callbacks,
        )
    )


def trl_best(base: Path, file: Path, steps: int, folder: Path) -> Iterator[float]:
    """SFTTrainer, optimized: bf16 weights, no gradient checkpointing, loss on replies only."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    lines = file.read_text(encoding="utf-8").splitlines()
    chats = [json.loads(line)["messages"] for line in lines]
    rows = Dataset.from_list([{"prompt": c[:-1], "completion": c[-1:]} for c in chats])
    arguments = SFTConfig(
        str(folder),
        max_steps=steps,
        bf16=True,
        gradient_checkpointing=False,
        model_init_kwargs={"dtype": "bfloat16"},
        **_arguments(),
    )
    yield from _step_ends(
        lambda callbacks: SFTTrainer(
            str(base),
            args=arguments,
            train_dataset=rows,
            peft_config=_lora(),
            callbacks=callbacks,
        )
    )


CONTENDERS: dict[str, Callable[[Path, Path, int, Path], Iterator[float]]] = {
    "emojitune": emojitune,
    "transformers Trainer + PEFT, bf16": trainer,
    "TRL SFTTrainer, defaults": trl_default,
    "TRL SFTTrainer, optimized": trl_best,
}


def base_model() -> Path:
    from emojitune.models.catalog import SMOLLM2_135M
    from emojitune.models.download import fetch
    from emojitune.settings import Settings

    return fetch(SMOLLM2_135M, Settings())


def _now() -> float:
    """The time, once a GPU has finished its queue: kernels are launched long before."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.time()


def _peak_mb() -> float:
    """The peak memory: the GPU's, where there is one."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _lora() -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def _arguments() -> dict[str, Any]:
    import torch

    return {
        "per_device_train_batch_size": BATCH,
        "learning_rate": LEARNING_RATE,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
    }


def _step_ends(make: Callable[[list[Any]], Any]) -> Iterator[float]:
    """Run a trainer to its end; then yield the time at which each step ended."""
    from transformers import TrainerCallback

    ended: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ended.append(_now())

    make([Clock()]).train()
    yield from ended


def main(name: str, base: str, file: str, steps: str, started: str) -> None:
    with TemporaryDirectory() as folder:
        ended = list(CONTENDERS[name](Path(base), Path(file), int(steps), Path(folder)))
    seconds = [after - before for before, after in pairwise(ended)]
    say({"first_step": ended[0] - float(started), "steps": seconds, "peak_mb": _peak_mb()})


if __name__ == "__main__":
    main(*sys.argv[1:])
