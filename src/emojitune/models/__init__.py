"""What is trained and run: base models, their chat templates, and LoRA adapters."""
