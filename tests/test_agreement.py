"""The fast paths end to end, against transformers and PEFT in float32, one example at a time."""

from pathlib import Path

import pytest
import torch

from benchmarks import adapters, agreement, differences, fast_paths
from benchmarks.contenders import base_model
from benchmarks.prompts import Prompts
from benchmarks.reference import ReferenceModel
from emojitune.dataset.example import Message, TrainingExample
from emojitune.dataset.statistics import closed_vocabulary
from emojitune.dataset.validation import load_examples
from emojitune.models import backend, loader
from emojitune.models.loader import LoadedHF

# peft's own
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

EXAMPLES = [
    TrainingExample(
        (
            Message("system", "You're a chatbot that only responds with emojis!"),
            Message("user", question),
            Message("assistant", reply),
        )
    )
    for question, reply in (
        ("I just passed my driving test!", "(party)"),
        ("What is going on?", "(devil)"),
        ("My dog is tired.", "(yawn)"),
        ("what", "(yawningface)"),
    )
]
LABELS = ("(party)", "(devil)", "(yawn)", "(yawningface)", "(dog)", "(dog)s")


@pytest.fixture(params=["fast", "modules"])
def _both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Llamas, and models that only transformers' modules can run."""
    if request.param == "modules":
        monkeypatch.setattr(backend, "read_llama", lambda folder: None)


needs_cuda = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no CUDA device here"
)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=needs_cuda)])
def device(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.mark.usefixtures("_both_ways")
def test_training_agrees_with_plain_autograd(
    tiny: LoadedHF, tiny_base: Path, tmp_path: Path, device: str
) -> None:
    adapter = adapters.noisy(tiny_base, tmp_path / "noise", std=0.1)
    examples = [tiny.renderer.render_example(example.messages) for example in EXAMPLES]
    numbers = fast_paths.precision(torch.float32, device)
    found = fast_paths.gradients(tiny_base, adapter, numbers, examples)
    expected = ReferenceModel(tiny_base, adapter, torch.float32).gradients(examples)
    off = differences.of_training(found, expected)
    # Both sum the same numbers in float32, in another order.
    assert off.loss < 1e-5
    assert off.gradient < 1e-5


@pytest.mark.usefixtures("_both_ways")
def test_chat_agrees_with_plain_modules(
    tiny: LoadedHF, tiny_base: Path, tmp_path: Path, device: str
) -> None:
    adapter = adapters.noisy(tiny_base, tmp_path / "noise", std=0.1)
    prompts = Prompts.of(EXAMPLES, LABELS, tiny.renderer)
    chat = fast_paths.Chat(tiny_base, adapter, fast_paths.precision(torch.float32, device))
    plain = ReferenceModel(tiny_base, adapter, torch.float32)
    off = differences.of_chat(chat.log_probabilities(prompts), plain.log_probabilities(prompts))
    assert off.largest < 1e-3  # nats
    joints = plain.joints(prompts)
    assert differences.of_replies(chat.chosen(prompts), joints).behind == ()
    assert all(len({round(float(score), 6) for score in joint}) > 1 for joint in joints)


@needs_cuda
@pytest.mark.usefixtures("_both_ways")
def test_gpu_kernels_round_no_worse_than_a_cpu(
    tiny: LoadedHF, tiny_base: Path, tmp_path: Path
) -> None:
    adapter = adapters.noisy(tiny_base, tmp_path / "noise", std=0.1)
    examples = [tiny.renderer.render_example(example.messages) for example in EXAMPLES]
    expected = ReferenceModel(tiny_base, adapter, torch.float32).gradients(examples)
    cpu, cuda = (
        differences.of_training(
            fast_paths.gradients(
                tiny_base, adapter, fast_paths.precision(torch.bfloat16, device), examples
            ),
            expected,
        )
        for device in ("cpu", "cuda")
    )
    assert cuda.gradient < 1.5 * cpu.gradient
    assert cuda.loss < 0.01


@pytest.mark.slow
def test_training_of_the_real_base_loses_no_more_than_bf16_does(tmp_path: Path) -> None:
    base = base_model()
    adapter = adapters.noisy(base, tmp_path / "noise", std=agreement.NOISE)
    examples = load_examples(agreement.TRAIN)[:8]
    renderer = loader.load_hf(base, fast_paths.precision(torch.float32)).renderer
    off = agreement.training(base, adapter, [renderer.render_example(e.messages) for e in examples])
    exact, ours = off["emojitune, float32"], off["emojitune, bf16"]
    # Sums of at most a few thousand float32 numbers in another order: measured 1e-6 and 1e-5.
    assert exact.loss < 1e-5
    assert exact.gradient < 1e-4
    # The eight bits of bf16 cost the plain modules about 4 % of the gradient. Fused products round
    # at other places, not at more of them; the tolerance of a quarter is for chance.
    assert ours.gradient < 1.25 * off["transformers, bf16"].gradient
    assert ours.loss < 0.005  # depends on rounding: 0.6 to 1.6 ‰ measured


@pytest.mark.slow
def test_chat_on_the_real_base_loses_no_more_than_bf16_does(tmp_path: Path) -> None:
    base = base_model()
    adapter = adapters.noisy(base, tmp_path / "noise", std=agreement.NOISE)
    renderer = loader.load_hf(base, fast_paths.precision(torch.float32)).renderer
    # The reference scores labels one by one, which takes a minute for all.
    labels = closed_vocabulary(load_examples(agreement.TRAIN))[::10]
    prompts = Prompts.of(load_examples(agreement.VALID)[:2], labels, renderer)
    said, chosen = agreement.chat(base, adapter, prompts)
    # In nats. A merged adapter and an unmerged one differ by float32 rounding.
    assert said["emojitune, float32"].largest < 1e-3
    assert chosen["emojitune, float32"].behind == ()
    # bf16 rounds every state to eight bits, here as in the plain modules.
    assert said["emojitune, bf16"].mean < 1.25 * said["transformers, bf16"].mean
    # Another label may win only if float32 has both within the resolution of bf16: a tenth of a nat
    # for each of a label's few tokens.
    assert all(behind < 0.5 for behind in chosen["emojitune, bf16"].behind)
