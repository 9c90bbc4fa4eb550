"""Threads in memory. Every look-up is by user as well: a thread's id alone gives no access."""

from typing import TypeVar

from chatkit.store import NotFoundError, Store
from chatkit.types import Attachment, Page, ThreadItem, ThreadMetadata

from chatkit_sessions.service import SessionContext

T = TypeVar("T", ThreadMetadata, ThreadItem)


class ThreadsInMemory(Store[SessionContext]):
    """The store of a `ChatKitServer`; for production, write one on your database."""

    def __init__(self) -> None:
        self._threads: dict[tuple[str, str], ThreadMetadata] = {}
        self._items: dict[tuple[str, str], dict[str, ThreadItem]] = {}

    async def load_thread(self, thread_id: str, context: SessionContext) -> ThreadMetadata:
        """Return a thread of the user."""
        thread = self._threads.get((context.user, thread_id))
        if thread is None:
            raise NotFoundError(thread_id)
        return thread.model_copy(deep=True)

    async def save_thread(self, thread: ThreadMetadata, context: SessionContext) -> None:
        """Keep a thread."""
        # openai-chatkit also passes threads with their items, which have their own place.
        own = thread.model_dump(exclude={"items"})
        self._threads[context.user, thread.id] = ThreadMetadata(**own)

    async def load_threads(
        self, limit: int, after: str | None, order: str, context: SessionContext
    ) -> Page[ThreadMetadata]:
        """Return the user's threads."""
        own = [thread for (user, _), thread in self._threads.items() if user == context.user]
        return _page(own, limit, after, order)

    async def delete_thread(self, thread_id: str, context: SessionContext) -> None:
        """Remove a thread of the user."""
        self._threads.pop((context.user, thread_id), None)
        self._items.pop((context.user, thread_id), None)

    async def load_thread_items(
        self, thread_id: str, after: str | None, limit: int, order: str, context: SessionContext
    ) -> Page[ThreadItem]:
        """Return the items of a thread of the user."""
        items = list(self._items.get((context.user, thread_id), {}).values())
        return _page(items, limit, after, order)

    async def load_item(self, thread_id: str, item_id: str, context: SessionContext) -> ThreadItem:
        """Return an item of a thread of the user."""
        item = self._items.get((context.user, thread_id), {}).get(item_id)
        if item is None:
            raise NotFoundError(item_id)
        return item

    async def add_thread_item(
        self, thread_id: str, item: ThreadItem, context: SessionContext
    ) -> None:
        """Keep an item."""
        self._items.setdefault((context.user, thread_id), {})[item.id] = item

    async def save_item(self, thread_id: str, item: ThreadItem, context: SessionContext) -> None:
        """Keep an item."""
        await self.add_thread_item(thread_id, item, context)

    async def delete_thread_item(
        self, thread_id: str, item_id: str, context: SessionContext
    ) -> None:
        """Remove an item of a thread of the user."""
        self._items.get((context.user, thread_id), {}).pop(item_id, None)

    async def save_attachment(self, attachment: Attachment, context: SessionContext) -> None:
        """Refuse it: this example has no uploads."""
        raise NotImplementedError

    async def load_attachment(self, attachment_id: str, context: SessionContext) -> Attachment:
        """Find nothing: this example has no uploads."""
        del context
        raise NotFoundError(attachment_id)

    async def delete_attachment(self, attachment_id: str, context: SessionContext) -> None:
        """Find nothing: this example has no uploads."""
        del context
        raise NotFoundError(attachment_id)


def _page(entries: list[T], limit: int, after: str | None, order: str) -> Page[T]:
    """A page of entries that were kept oldest first."""
    ordered = entries[::-1] if order == "desc" else entries
    ids = [entry.id for entry in ordered]
    start = ids.index(after) + 1 if after in ids else 0
    page = ordered[start : start + limit]
    has_more = start + limit < len(ordered)
    return Page(data=page, has_more=has_more, after=page[-1].id if has_more else None)
