"""A random model of a few thousand parameters, with a tokenizer trained on the spot."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from emojitune.inference import loading
from emojitune.inference.chat_model import ChatModel
from emojitune.models import adapter, loader, lora
from emojitune.models.backend import choose_backend
from emojitune.models.loader import LoadedHF, TrainableModel
from emojitune.settings import Settings

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXTS = [
    "You're a chatbot that only responds with emojis!",
    "I just passed my driving test! What a day, what is going on? My dog is tired.",
    "system user assistant (party) (devil) (dog) (yawn) (yawningface) (sleeping)",
]


def make_tiny_base(folder: Path, context_length: int = 256, layers: int = 2) -> Path:
    """A base model folder, the same on every call."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=CHATML,
    )
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context_length,
        tie_word_embeddings=True,
        initializer_range=0.3,  # lively enough that next tokens differ
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def load_tiny(folder: Path, adapter: Path | None = None) -> LoadedHF:
    """The model in float32, so that tests may compare closely."""
    return loader.load_hf(folder, float32(), adapter)


def trainable_tiny(folder: Path) -> TrainableModel:
    """The model as it is trained, in float32."""
    return loader.load_for_training(folder, float32())


def chat_tiny(
    folder: Path, adapter: Path | None = None, *, context_length: int | None = None
) -> ChatModel:
    """The model, with an adapter beside it if one is given, ready to reply, in float32."""
    backend = choose_backend(folder)
    runtime = loading.load_base(backend, float32(), ThreadPoolExecutor(1)).runtime
    runtime.context_length = context_length or runtime.context_length
    base = ChatModel(runtime)
    return base if adapter is None else base.with_adapter(adapter)


def float32() -> loader.Precision:
    return loader.choose_precision(Settings(device="cpu", dtype="float32"))


def make_adapter(
    base: Path, folder: Path, seed: int | None, vocabulary: tuple[str, ...] = ()
) -> Path:
    """An adapter folder: random numbers by a seed, or None for one that changes nothing."""
    module = load_tiny(base).module
    lora.attach(module, rank=4, alpha=8.0, seed=0)
    state = lora.adapter_state(module)
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in state.values():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    adapter.write(folder, state, adapter.AdapterInfo("tiny", 4, 8.0, vocabulary))
    return folder
