"""The reference for the fast paths: transformers' own modules, PEFT, autograd.

One example at a time: no packing, no padding of prompts, no cache of earlier requests, no search.
Nothing of ours is in here but the tokens, so agreement is never one mistake made twice.
"""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.prompts import Prompts
from emojitune.models.renderer import RenderedExample

_PEFT = "base_model.model."


class ReferenceModel:
    """A base model with an adapter beside its weights, in one dtype; PEFT keeps LoRA in float32."""

    def __init__(self, base: Path, adapter: Path, dtype: torch.dtype) -> None:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        module = AutoModelForCausalLM.from_pretrained(
            base, dtype=dtype, attn_implementation="eager"
        )
        self._model: Any = PeftModel.from_pretrained(module, adapter, is_trainable=True)

    def gradients(self, examples: Sequence[RenderedExample]) -> tuple[float, dict[str, Tensor]]:
        """Mean loss over the learned tokens of a batch, and its gradients by `adapter_state`'s
        names."""
        learned = sum(sum(example.loss_mask[1:]) for example in examples)
        self._model.zero_grad()
        total = 0.0
        for example in examples:
            ids, mask = torch.tensor(example.ids), torch.tensor(example.loss_mask)
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
        """For each prompt the log-probabilities of all tokens after it and after each token of its
        reply, (1 + reply, V)."""
        found = []
        for prompt, reply in zip(prompts.ids, prompts.replies, strict=True):
            logits = self._model(input_ids=torch.tensor([[*prompt, *reply]])).logits
            found.append(torch.log_softmax(logits[0, len(prompt) - 1 :].float(), -1))
        return found

    def chosen(self, prompts: Prompts) -> list[int]:
        """The index of the most probable label for each prompt."""
        return [int(joint.argmax()) for joint in self.joints(prompts)]

    def joints(self, prompts: Prompts) -> list[Tensor]:
        """For each prompt, the joint log-probability of each label as the reply, (labels,).

        Every label is computed to its last token, after the prompt, which is computed once. Where a
        longer label begins with it, ending there is a choice, and part of its probability.
        """
        labels = [tuple(ids) for ids in prompts.label_ids]
        begun = {label[:end] for label in labels for end in range(1, len(label))}
        ends = [sorted(prompts.stop_ids) if label in begun else [] for label in labels]
        return [self._joint(prompt, labels, ends) for prompt in prompts.ids]

    @torch.no_grad()
    def _joint(
        self,
        prompt: Sequence[int],
        labels: Sequence[tuple[int, ...]],
        ends: Sequence[Sequence[int]],
    ) -> Tensor:
        known = self._model(input_ids=torch.tensor([list(prompt)]), use_cache=True)
        found = torch.zeros(len(labels))
        for length in {len(label) for label in labels}:
            places = [place for place, label in enumerate(labels) if len(label) == length]
            cache = deepcopy(known.past_key_values)
            cache.batch_repeat_interleave(len(places))
            ids = torch.tensor([labels[place] for place in places])
            logits = self._model(input_ids=ids, past_key_values=cache).logits
            for place, later in zip(places, logits, strict=True):
                rows = torch.cat([known.logits[0, -1:], later]).float().log_softmax(-1)
                found[place] = rows[range(length), labels[place]].sum()
                if ends[place]:
                    found[place] += rows[length, list(ends[place])].logsumexp(0)
        return found
