"""Errors that reach the user: what was wrong, where it was looked for, the next command to type.

Exit codes: 0 done, 1 failed, 2 usage or recipe, 3 refused by ``gen --gate``, 130 interrupted.
"""

from collections.abc import Mapping, Sequence


class IcmloraError(Exception):
    """A failure that is shown to the user as it is, without a traceback.

    Args:
        message: what was wrong, with the offending value.
        where: the file, folder or address that was looked at.
        hint: what to type or change next.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        """Keep the message, the place and the hint for the user."""
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def as_dict(self) -> dict[str, object]:
        """Return the JSON form that ``--json`` prints under ``error``."""
        return {
            "kind": type(self).__name__,
            "message": self.message,
            "where": self.where,
            "hint": self.hint,
            "exit_code": self.exit_code,
        }


class UsageError(IcmloraError):
    """The command line or a value on it is wrong."""

    exit_code = 2


LISTED = 20  # faults of many that are told


class SpecError(IcmloraError):
    """A task file or recipe has faults; all of them are listed, one a line.

    Args:
        message: one line that sums up.
        faults: one line a fault: ``file:line: key: what is wrong``.
    """

    exit_code = 2

    def __init__(
        self, message: str, faults: Sequence[str], *, where: str | None = None, hint: str | None = None
    ) -> None:
        """Keep the faults beside the message."""
        super().__init__(message, where=where, hint=hint)
        self.faults = tuple(faults)

    @classmethod
    def counted(
        cls, what: str, faults: Sequence[str], *, where: str | None = None, hint: str | None = None
    ) -> "SpecError":
        """Return the error whose message is ``what`` and how many faults there are; the first 20 are listed."""
        count = "one fault" if len(faults) == 1 else f"{len(faults)} faults"
        rest = [f"... and {len(faults) - LISTED} more"] if len(faults) > LISTED else []
        return cls(f"{what} {count}", [*faults[:LISTED], *rest], where=where, hint=hint)

    def as_dict(self) -> dict[str, object]:
        """Return the JSON form, with the faults joined by newlines."""
        return super().as_dict() | {"faults": "\n".join(self.faults)}


class NotFoundError(IcmloraError):
    """A task, adapter, generator or base that the registry does not have."""


class BaseUnavailableError(IcmloraError):
    """A base model that neither is at hand nor can be fetched."""


class CorruptFileError(IcmloraError):
    """A file whose bytes are not what its format or its manifest says."""


class UnsupportedAdapterError(IcmloraError):
    """An adapter that is whole, but of another format, or more than a LoRA can hold."""


class WrongBaseError(IcmloraError):
    """An adapter that was made for another base model than the one it was given with."""


class AlreadyExistsError(IcmloraError):
    """An output that would be overwritten."""


class OutOfSpaceError(IcmloraError):
    """The disk, or the limit on a file's size, is full."""


class PushRefusedError(IcmloraError):
    """An output that is not fit to be sent, or that the hub does not take."""


class TrainingDivergedError(IcmloraError):
    """A loss became NaN or infinite."""


class GateRefusedError(IcmloraError):
    """A generated adapter that is no better than the base or the average, so that nothing was written.

    Args:
        message: one line with the figures.
        nll: ``adapter``, ``base`` and, where there is one, ``average``: mean NLL on the examples, nats per token.
    """

    exit_code = 3

    def __init__(
        self, message: str, nll: Mapping[str, float], *, where: str | None = None, hint: str | None = None
    ) -> None:
        """Keep the NLLs beside the message."""
        super().__init__(message, where=where, hint=hint)
        self.nll = dict(nll)

    def as_dict(self) -> dict[str, object]:
        """Return the JSON form, with the figures under ``nll``."""
        return super().as_dict() | {"nll": self.nll}


class RequestError(UsageError):
    """A request to the server that cannot be answered as it stands.

    Args:
        message: what is wrong with it.
        param: the field, as OpenAI's API names it; None where it is no single one.
        code: OpenAI's code for it, if there is one.
    """

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        """Keep the field and OpenAI's code beside the message."""
        super().__init__(message)
        self.param = param
        self.code = code


class BusyError(IcmloraError):
    """A server whose queue is full.

    Args:
        message: what is full.
        retry_after: seconds after which to ask again.
    """

    def __init__(self, message: str, retry_after: int) -> None:
        """Keep the seconds to wait beside the message."""
        super().__init__(message)
        self.retry_after = retry_after


class StoppedError(IcmloraError):
    """Work that was given up: its client is gone, or the server ends."""
