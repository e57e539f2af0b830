"""The Typer commands, one file for each noun or verb. Only this layer prints.

Commands import workflows within their functions, so that ``--help`` and light commands start without torch.
"""
