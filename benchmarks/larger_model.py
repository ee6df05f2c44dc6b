"""A larger model on a GPU, side by side: `python -m benchmarks.larger_model [--rounds 3]`.

A Llama of about 1.5 billion random parameters, with the default base's tokenizer, and chats of 512
tokens, half of them the reply; everything else as in `benchmarks.training`. Random numbers multiply
as fast as trained ones. Takes 30 GB of a GPU's memory.
"""

import argparse
import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from transformers import AutoTokenizer

from benchmarks import larger_files, machine, report
from benchmarks.contenders import BATCH, base_model
from benchmarks.training import DATA, measure, summary, table
from emojitune.models.renderer import Renderer

SIZES = {
    "num_hidden_layers": 24,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
}


def random_model(folder: Path) -> Path:
    """The default base with the sizes above and random weights in bf16."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shutil.copytree(base_model(), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | SIZES
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        model = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(folder), dtype=torch.bfloat16
        )
    finally:
        torch.set_default_device("cpu")
    model.save_pretrained(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=512, help="of each chat")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=report.RESULTS / "larger_model.json")
    given = parser.parse_args()
    console, before = Console(), machine.state()
    with TemporaryDirectory() as name:
        base = random_model(Path(name) / "base")
        renderer = Renderer(AutoTokenizer.from_pretrained(base), stop_ids=())
        chats = larger_files.chats(
            DATA, given.tokens, given.steps * BATCH, renderer, Path(name) / "chats.jsonl"
        )
        found = measure(base, chats, given.steps, given.rounds, console)
    rows = {name: summary(runs) for name, runs in found.items()}
    console.print(table(rows))
    sizes = {"sizes": SIZES, "tokens": given.tokens, "batch": BATCH, "steps": given.steps}
    report.write(given.json, console, {"machine": before, **sizes, "rows": rows, "runs": found})


if __name__ == "__main__":
    main()
