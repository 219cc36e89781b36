"""Errors of the sandbox: an invalid setting, or a rejected request."""


class SettingsError(ValueError):
    """A setting or the reply file is wrong. `str(error)` names it and says what is expected."""


class Rejection(Exception):  # noqa: N818 - the server works; the request is what is wrong
    """A request that gets an error response instead of a message, and isn't billed.

    `error_type` and `code` are the error body's words. `retry_after` is in seconds.
    """

    def __init__(
        self, status: int, error_type: str, code: str, message: str, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type
        self.code = code
        self.message = message
        self.retry_after = retry_after


def invalid_request(message: str, code: str = "invalid_parameter", status: int = 400) -> Rejection:
    """The rejection of a request that can never succeed as it stands."""
    return Rejection(status, "invalid_request_error", code, message)
