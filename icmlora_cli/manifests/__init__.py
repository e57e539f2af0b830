"""The JSON files that icmlora writes and reads, as pydantic models, which name the broken key. No torch here."""
