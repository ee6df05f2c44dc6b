"""Folders of models from elsewhere: what they may contain, and where their code-like parts run."""
