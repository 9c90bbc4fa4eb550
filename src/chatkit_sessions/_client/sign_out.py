"""Ending all sessions of a user: several at once, and all of them whatever becomes of one."""

import logging
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Final, Generic

from chatkit_sessions._api import operations
from chatkit_sessions._config.deadline import Deadline
from chatkit_sessions._config.settings import KeyCallable
from chatkit_sessions._redaction import redact
from chatkit_sessions.errors import (
    APITimeoutError,
    ChatKitError,
    InvalidRequestError,
    SessionStoreError,
)

from .base import E
from .creation import new_token
from .sharing import SharingFlow

if TYPE_CHECKING:
    from chatkit_sessions._sessions.records import StoredRecord

AT_ONCE: Final = 8
"""Sessions of one user that are cancelled at the same time."""

# Keep no other session from being cancelled; any other exception interrupts the call.
_MISTAKES: Final = (
    AssertionError, AttributeError, LookupError, NameError, RuntimeError, TypeError, ValueError,
)  # fmt: skip

logger: Final = logging.getLogger("chatkit_sessions")


class SignOut:
    """What has become of one user's sessions so far."""

    def __init__(self) -> None:
        self.found = 0
        """How many sessions there were."""
        self.left: dict[str, None] = {}
        """The ids of those that the API has not been asked to cancel."""
        self.errors: list[Exception] = []


class SignOutFlow(SharingFlow[KeyCallable, E], Generic[KeyCallable, E]):
    """The steps of signing a user out."""

    # What the two clients do each in their own way

    @abstractmethod
    async def _for_each(
        self,
        flow: Callable[[str], Coroutine[object, None, None]],
        items: Iterable[str],
        *,
        at_once: int,
    ) -> None:
        """Run a flow for each item, at most so many at once."""

    async def _delete_all(self, user: str, deadline: Deadline) -> None:
        self._check_open()
        signing_out = SignOut()
        try:
            await self._bounded(deadline, self._end_all, user, deadline, signing_out)
        except ChatKitError as error:  # the async client's limit ended it
            signing_out.errors.append(error)
        self._report(signing_out)

    async def _end_all(self, user: str, deadline: Deadline, signing_out: SignOut) -> None:
        """Cancel every session that may be active, and keep what goes wrong for the end."""
        generation, group = new_token(), self._scope.group_of_user(user)
        kept = self._registry.sign_out_without_store(group, generation=generation)
        active: dict[str, StoredRecord | None] = dict.fromkeys(kept)
        try:
            stored, problem = await self._registry.sign_out(
                self._scope, user, deadline, generation=generation
            )
            active |= stored
            if problem is not None:
                signing_out.errors.append(problem)
        except SessionStoreError as error:
            signing_out.errors.append(error)  # what this process knows of is ended all the same
        signing_out.left = dict.fromkeys(active)
        signing_out.found = len(active)

        async def end(session_id: str) -> None:
            if self._lifetime.closed or deadline.remaining() == 0:
                return
            del signing_out.left[session_id]
            try:
                cancel = operations.cancel(session_id)
                await self._cancel(
                    cancel, session_id, deadline, missing_ok=True, stored=active[session_id]
                )
            except InvalidRequestError as error:
                logger.warning("The session store lists what is no session: %s", error.message)
            except (ChatKitError, *_MISTAKES) as error:
                signing_out.errors.append(error)  # raised below, after the others are ended

        await self._for_each(end, active, at_once=AT_ONCE)

    def _report(self, signing_out: SignOut) -> None:
        """Raise the first error, and log the others."""
        errors, left = signing_out.errors, len(signing_out.left)
        if left and self._lifetime.closed and not errors:
            self._check_open()
        if left and not self._lifetime.closed:
            errors.insert(0, _time_is_up(left, signing_out.found))
        # What the store has not learned weighs most: sessions may go on that nobody knows of.
        errors.sort(key=lambda error: not isinstance(error, SessionStoreError))
        for also in errors[1:]:
            logger.warning("A session could not be deleted: %s", redact(str(also)))
        if errors:
            raise errors[0]


def _time_is_up(left: int, found: int) -> APITimeoutError:
    return APITimeoutError(
        f"The call had no time left to delete {left} of the user's {found} sessions.",
        hint="Delete the user's sessions again, or allow the call more time: `timeout`.",
    )
