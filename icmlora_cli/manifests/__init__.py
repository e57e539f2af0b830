"""The JSON files that icmlora writes and reads, as types: a schema each, one way to read, one error. No torch here."""
