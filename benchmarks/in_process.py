"""Engines inside the benchmark's own process."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.engine import MAX_TOKENS, Engine, Inputs, Reply
from benchmarks.reply_prompts import Prompt


@contextmanager
def transformers(inputs: Inputs, started: float) -> Iterator[Engine]:
    """transformers' generate in bf16: simultaneous requests are one left-padded batch."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(inputs.tuned.merged, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(inputs.tuned.merged, dtype=torch.bfloat16).eval()

    @torch.inference_mode()
    def batch(prompts: Sequence[Prompt]) -> list[Reply]:
        began = time.perf_counter()
        texts = [prompt.text for prompt in prompts]
        given = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
        ids = model.generate(**given, max_new_tokens=MAX_TOKENS, do_sample=False)
        new = ids[:, given["input_ids"].shape[1] :]
        replies = tokenizer.batch_decode(new, skip_special_tokens=True)
        seconds = time.perf_counter() - began
        return [Reply(text, seconds) for text in replies]

    def ask(prompts: Sequence[Prompt], concurrency: int) -> list[Reply]:
        starts = range(0, len(prompts), concurrency)
        return [reply for start in starts for reply in batch(prompts[start : start + concurrency])]

    yield Engine(started, os.getpid(), ask)


@contextmanager
def openvino(inputs: Inputs, started: float) -> Iterator[Engine]:
    """OpenVINO GenAI: int8 weights, continuous batching, prefix cache."""
    import openvino_genai as genai

    scheduler = genai.SchedulerConfig()
    scheduler.enable_prefix_caching = True
    scheduler.cache_size = 1  # GB
    scheduler.max_num_seqs = max(inputs.levels)
    pipeline = genai.ContinuousBatchingPipeline(inputs.tuned.q8_0, scheduler, "CPU")
    tokenizer = pipeline.get_tokenizer()
    greedy = pipeline.get_config()
    greedy.max_new_tokens, greedy.do_sample, greedy.apply_chat_template = MAX_TOKENS, False, False

    def ask(prompts: Sequence[Prompt], concurrency: int) -> list[Reply]:
        waiting = list(enumerate(prompts))[::-1]
        running = {}
        replies: dict[int, Reply] = {}
        while waiting or running:
            while waiting and len(running) < concurrency:
                number, prompt = waiting.pop()
                began = time.perf_counter()
                running[number] = began, pipeline.add_request(number, prompt.text, greedy)
            pipeline.step()
            for number, (began, request) in list(running.items()):
                if request.get_status() == genai.GenerationStatus.FINISHED:
                    text = tokenizer.decode(request.read_all()[0].generated_ids)
                    replies[number] = Reply(text, time.perf_counter() - began)
                    del running[number]
        return [replies[number] for number in range(len(prompts))]

    yield Engine(started, os.getpid(), ask)
