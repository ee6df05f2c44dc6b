"""emojitune: fine-tune a chatbot that answers in emoji labels, on OpenAI or on your own machine."""

__version__ = "0.1.0"
