"""The HTTP side of ``icmlora serve``: OpenAI's endpoints, request bodies and responses."""
