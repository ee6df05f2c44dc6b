"""Fine-tuned models and what they leave on the disk: an adapter goes with its last name."""

import shutil

from emojitune.settings import Settings
from emojitune.store.models import ModelStore


def forget_model(name: str, models: ModelStore, settings: Settings) -> None:
    """Forget a fine-tuned model, and remove its adapter unless another model uses it.

    Raises:
        NotFoundError: There is none of this name.
    """
    adapter = models.get(name).adapter
    models.delete(name)
    if all(other.adapter != adapter for other in models.list()):
        shutil.rmtree(settings.adapters / adapter, ignore_errors=True)
