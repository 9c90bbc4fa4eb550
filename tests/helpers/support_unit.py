"""What the unit tests share."""

import traceback


def rendered(error: BaseException) -> str:
    """The traceback as error reports print it, with local variables, below the test's own frame."""
    below = error.__traceback__ and error.__traceback__.tb_next
    report = traceback.TracebackException(type(error), error, below, capture_locals=True)
    return "".join(report.format())
