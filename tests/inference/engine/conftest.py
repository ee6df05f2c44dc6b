from pathlib import Path

import pytest
import torch
from tiny_model import chat_tiny

from emojitune.inference.engine.batch import ModelRunner
from emojitune.inference.engine.hf_runner import HFRunner
from emojitune.models.loader import LoadedHF


@pytest.fixture(params=["packed", "modules"])
def runner(request: pytest.FixtureRequest, tiny_base: Path, tiny: LoadedHF) -> ModelRunner:
    """Both runners: that of Llamas, and that of models run through their own modules."""
    if request.param == "modules":
        return HFRunner(tiny.module, torch.device("cpu"))
    return chat_tiny(tiny_base).runtime.runner
