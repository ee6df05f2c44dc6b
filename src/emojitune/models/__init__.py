"""Base models, their chat templates and LoRA adapters: everything that is trained and run."""
