"""The HTTP face of the server: OpenAI's paths, bodies and replies."""
