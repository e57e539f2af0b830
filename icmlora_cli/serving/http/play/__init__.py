"""The playground over HTTP: its page, and what the page asks for."""
