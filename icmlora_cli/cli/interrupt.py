"""Ctrl-C, at any moment: one line on stderr and exit code 130. Imports nothing, since it may come that early."""

MESSAGE = "interrupted: what was finished is kept; run the same command again to go on"
EXIT_CODE = 130


def interrupted(error: BaseException) -> bool:
    """Tell whether an error comes from Ctrl-C.

    A library that is being imported may turn the KeyboardInterrupt into an error of its own; the chain tells.

    Args:
        error: what was raised.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        item = waiting.pop()
        if item is None or id(item) in seen:
            continue
        if isinstance(item, KeyboardInterrupt):
            return True
        seen.add(id(item))
        waiting += [item.__cause__, item.__context__]
    return False
