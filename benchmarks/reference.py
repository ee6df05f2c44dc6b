"""The plain way, to hold the fast paths against: transformers' own modules, PEFT, autograd.

One example at a time: no packing, no padding of prompts, no cache of earlier requests, no search.
Nothing of ours is in here but the tokens, so what both ways agree on is not one mistake made twice.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.prompts import Prompts
from emojitune.models.chat_template import Rendered

_PEFT = "base_model.model."


class Plain:
    """A base model with an adapter beside its weights, in one dtype; PEFT keeps LoRA in float32."""

    def __init__(self, base: Path, adapter: Path, dtype: torch.dtype) -> None:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        module = AutoModelForCausalLM.from_pretrained(
            base, dtype=dtype, attn_implementation="eager"
        )
        self._model: Any = PeftModel.from_pretrained(module, adapter, is_trainable=True)

    def gradients(self, examples: Sequence[Rendered]) -> tuple[float, dict[str, Tensor]]:
        """Mean loss over the learned tokens of a batch, and its gradients by `adapter_state`'s
        names."""
        learned = sum(sum(example.mask[1:]) for example in examples)
        self._model.zero_grad()
        total = 0.0
        for example in examples:
            ids, mask = torch.tensor(example.ids), torch.tensor(example.mask)
            logits = self._model(input_ids=ids[None]).logits[0, :-1].float()
            places = mask[1:].nonzero()[:, 0]
            loss = functional.cross_entropy(logits[places], ids[1:][places], reduction="sum")
            (loss / learned).backward()
            total += float(loss.detach())
        return total / learned, {
            name.removeprefix(_PEFT).removesuffix(".default.weight"): parameter.grad
            for name, parameter in self._model.named_parameters()
            if parameter.grad is not None
        }

    @torch.no_grad()
    def log_probabilities(self, prompts: Prompts) -> list[Tensor]:
        """For each prompt, of all tokens behind it and behind each token of its reply,
        (1 + reply, V)."""
        found = []
        for prompt, reply in zip(prompts.ids, prompts.replies, strict=True):
            logits = self._model(input_ids=torch.tensor([[*prompt, *reply]])).logits
            found.append(torch.log_softmax(logits[0, len(prompt) - 1 :].float(), -1))
        return found

    def chosen(self, prompts: Prompts) -> list[int]:
        """The place of the likeliest label for each prompt."""
        return [int(joint.argmax()) for joint in self.joints(prompts)]

    def joints(self, prompts: Prompts) -> list[Tensor]:
        """For each prompt, the joint log-probability of each label as the reply, (labels,).

        Every label is computed to its last token, behind the prompt computed once. Where a longer
        label begins with it, ending there is a choice, and part of its probability.
        """
        begun = {tuple(ids[:end]) for ids in prompts.label_ids for end in range(1, len(ids))}
        stops = sorted(prompts.stop_ids)
        ends = [stops if tuple(ids) in begun else [] for ids in prompts.label_ids]
        return [
            torch.tensor(
                [
                    sum(_gains(row, ids, end))
                    for row, ids, end in zip(
                        self._label_rows(prompt, prompts.label_ids),
                        prompts.label_ids,
                        ends,
                        strict=True,
                    )
                ]
            )
            for prompt in prompts.ids
        ]

    @torch.no_grad()
    def _label_rows(self, prompt: Sequence[int], labels: Sequence[Sequence[int]]) -> Tensor:
        """Log-probabilities behind the prompt and each token of each label, (labels, 1 + L, V)."""
        known = self._model(input_ids=torch.tensor([list(prompt)]), use_cache=True)
        known.past_key_values.batch_repeat_interleave(len(labels))
        longest = max(map(len, labels))
        ids = torch.tensor([[*label, *[0] * (longest - len(label))] for label in labels])
        later = self._model(input_ids=ids, past_key_values=known.past_key_values).logits
        first = known.logits[:, -1:].expand(len(labels), 1, -1)
        return torch.log_softmax(torch.cat([first, later], dim=1).float(), -1)


def _gains(row: Tensor, label: Sequence[int], stops: Sequence[int]) -> Iterator[float]:
    """What each token of a label adds, given (1 + L, V), and last its end where that counts."""
    for place, token in enumerate(label):
        yield float(row[place, token])
    if stops:
        yield float(row[len(label), list(stops)].logsumexp(0))
