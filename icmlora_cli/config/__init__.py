"""Configuration: YAML specs and recipes, checked by pydantic."""
