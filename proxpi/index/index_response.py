"""What an index has responded: the values between an index, the revalidation and the stores."""

from __future__ import annotations

from typing import Generic, TypeVar

import attrs

from proxpi.simple import model

P = TypeVar("P")


@attrs.frozen
class StoredResponse:
    """The last response of one index for one project, without its body (RFC 9111).

    :ivar present: whether the index has the project; `served`: whether it ever had
    :ivar requested_at: the clock's seconds when the request began
    :ivar invalidated: by ``DELETE``: never fresh, and revalidated without validators
    :ivar root_answered: whether the root of the index had sent 200 by then (:class:`Root`)
    """

    present: bool
    requested_at: float
    etag: str | None = None
    last_modified: str | None = None
    served: bool = False
    invalidated: bool = False
    root_answered: bool = False

    def invalidate(self) -> StoredResponse:
        """Return the response after a ``DELETE``, whose sender may mistrust validators as well."""
        return attrs.evolve(self, invalidated=True)

    def validators(self) -> dict[str, str]:
        """Return the header fields by which the index may confirm its page (RFC 9110 13.1)."""
        if not self.present or self.invalidated:
            return {}
        fields = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in fields.items() if value is not None}


@attrs.frozen
class IndexPage:
    """A page of one index, parsed, and as it is stored."""

    project: model.Project
    document: bytes


@attrs.frozen
class IndexResponse(Generic[P]):
    """A response; without content, it confirms the old page or list, or means absence."""

    stored: StoredResponse
    content: P | None = None

    def supersedes(self, old: StoredResponse | None) -> bool:
        """Whether it is newer than `old` and, if it is a 304, about the validators of `old`."""
        if old is None:
            return True
        validators = (self.stored.etag, self.stored.last_modified)
        confirms = self.stored.present and self.content is None
        about = not confirms or validators == (old.etag, old.last_modified)
        return about and old.requested_at <= self.stored.requested_at
