"""The notebook's steps as functions over the `openai` SDK: the same for every provider."""
