"""Errors that reach the user: each says what was wrong, where, and which command to type next.

Exit codes: 0 done, 1 failed, 2 usage or recipe, 3 refused by ``gen --gate``, 130 interrupted.
"""

from collections.abc import Mapping, Sequence


class IcmloraError(Exception):
    """A failure that is shown to the user as it is, without a traceback.

    Args:
        message: what was wrong, with the offending value.
        where: the file, folder or address that was looked at; None where there is none.
        hint: what the user can type or change next; None where nothing is known to help.
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


LISTED = 20  # faults that are listed at most; the others are only counted


class SpecError(IcmloraError):
    """A task file or recipe has faults; all of them are listed, one a line.

    Args:
        message: one line that sums up the faults.
        faults: one line for each fault: ``file:line: key: what is wrong``.
        where: the file that was looked at; None where the faults name it.
        hint: what the user can type or change next; None where the faults say enough.
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
        """Return the error whose message counts the faults, of which the first 20 are listed.

        Args:
            what: the start of the message, such as ``task.yaml has``; the number of faults follows.
            faults: one line for each fault.
            where: the file that was looked at; None where the faults name it.
            hint: what the user can type or change next; None where the faults say enough.
        """
        count = "one fault" if len(faults) == 1 else f"{len(faults)} faults"
        rest = [f"... and {len(faults) - LISTED} more"] if len(faults) > LISTED else []
        return cls(f"{what} {count}", [*faults[:LISTED], *rest], where=where, hint=hint)

    def as_dict(self) -> dict[str, object]:
        """Return the JSON form, with the faults joined by newlines."""
        return super().as_dict() | {"faults": "\n".join(self.faults)}


class NotFoundError(IcmloraError):
    """Raised for a task, adapter, generator or base model that the registry does not have."""


class BaseUnavailableError(IcmloraError):
    """Raised for a base model that is neither on this machine nor can be fetched."""


class CorruptFileError(IcmloraError):
    """Raised for a file whose bytes are not what its format or its manifest says."""


class UnsupportedAdapterError(IcmloraError):
    """Raised for an undamaged adapter of a format that is not read, or that holds more than a LoRA can."""


class WrongBaseError(IcmloraError):
    """Raised for an adapter that was made for another base model than the one it is used with."""


class AlreadyExistsError(IcmloraError):
    """Raised for an output that would overwrite something."""


class OutOfSpaceError(IcmloraError):
    """Raised where the disk or the user's quota is full, or a file would exceed the system's limit on sizes."""


class DeviceMemoryError(IcmloraError):
    """Raised where the memory of a device does not suffice for the smallest piece of work."""


class PushRefusedError(IcmloraError):
    """Raised for an output that ``push`` must not send, or that the hub does not accept."""


class TrainingDivergedError(IcmloraError):
    """Raised where a loss became NaN or infinite, or what was trained gives such numbers."""


class GateRefusedError(IcmloraError):
    """Raised for a generated adapter that is no better than the base or the average; nothing was written.

    Args:
        message: one line with the figures.
        nll: the mean NLL on the examples, in nats per token, of ``adapter``, ``base`` and, where there is one,
            ``average``.
        where: the folder that was not written.
        hint: what the user can type or change next.
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
    """Raised for a request to the server that cannot be answered as it stands.

    Args:
        message: what is wrong with the request.
        param: the field that is wrong, as OpenAI's API names it; None where it is not a single one.
        code: OpenAI's code for the error; None where there is none.
    """

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        """Keep the field and OpenAI's code beside the message."""
        super().__init__(message)
        self.param = param
        self.code = code


class BusyError(IcmloraError):
    """Raised by a server whose queue is full.

    Args:
        message: what is full.
        retry_after: the seconds after which the client should ask again.
    """

    def __init__(self, message: str, retry_after: int) -> None:
        """Keep the seconds to wait beside the message."""
        super().__init__(message)
        self.retry_after = retry_after


class StoppedError(IcmloraError):
    """Raised within work that is given up, since its client is gone or the server ends."""
