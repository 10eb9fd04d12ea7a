"""Responses of an index: the values between an index, the revalidation and the stores."""

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
    :ivar serial: of the last page, which an absent one keeps; ``None``: the index stated none
    """

    present: bool
    requested_at: float
    etag: str | None = None
    last_modified: str | None = None
    served: bool = False
    invalidated: bool = False
    root_answered: bool = False
    serial: int | None = None

    @property
    def least_serial(self) -> int:
        """The serial that a response must reach; after a ``DELETE`` any will do."""
        return 0 if self.serial is None or self.invalidated else self.serial

    def reached_by(self, serial: int | None) -> bool:
        """Whether a response with this serial is as new; without one it may be."""
        return serial is None or serial >= self.least_serial

    def invalidate(self) -> StoredResponse:
        """Return the response after a ``DELETE``, whose sender may mistrust validators as well."""
        return attrs.evolve(self, invalidated=True)

    def without_validators(self) -> StoredResponse:
        return attrs.evolve(self, etag=None, last_modified=None)

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
        """Whether it replaces `old`: it is newer, also by its serial, and a 304 is about `old`."""
        if old is None:
            return True
        validators = (self.stored.etag, self.stored.last_modified)
        confirms = self.stored.present and self.content is None
        about = not confirms or validators == (old.etag, old.last_modified)
        newer = old.requested_at <= self.stored.requested_at
        return about and newer and old.reached_by(self.stored.serial)
