"""What is held of the root list: each index's names, those of all, and the forms in demand.

It is read from the folder when it is first wanted, and kept there whenever it changes. Each
``DELETE`` begins a new *generation*, on disk first. What indexes were asked for in an earlier
generation is *superseded*: it is merged for those who wait for it, and neither held nor kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from shutil import rmtree

import attrs
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxpi.index import list_names
from proxpi.index.client import IndexClient, Part, Work
from proxpi.index.list_folder import Content, Form, ListFile, ListFolder, Share
from proxpi.single_flight import Flights

_log = Logger(namespace="proxpi.index")


@attrs.define(eq=False)
class Contents:
    """What is held.

    :ivar shares: what each index said last; their times are the clock's
    :ivar names: those of all indexes, if all have said something and one of them has a list
    :ivar forms: ready to be sent
    :ivar generation: how often the list was to be forgotten
    """

    _sources: Sequence[IndexClient]
    _clock: IReactorTime
    folder: ListFolder
    _work: Work
    _wall: Callable[[], float] = time.time
    _elapsed: float = attrs.field(
        init=False,
        # Taken once: a wall clock that is set while proxpi runs has no say.
        default=attrs.Factory(lambda self: self._wall() - self._clock.seconds(), takes_self=True),
    )
    shares: dict[IndexClient, Share] = attrs.field(init=False, factory=dict)
    names: ListFile | None = attrs.field(init=False, default=None)
    forms: dict[Form, ListFile] = attrs.field(init=False, factory=dict)
    generation: int = attrs.field(init=False, default=0)
    _loaded: bool = attrs.field(init=False, default=False)
    _changing: DeferredLock = attrs.field(init=False, factory=DeferredLock)
    _saving: DeferredLock = attrs.field(init=False, factory=DeferredLock)
    _loading: Flights[None, None] = attrs.field(
        init=False, default=attrs.Factory(lambda self: Flights(self._clock), takes_self=True)
    )
    _presses: Flights[tuple[str, Form], ListFile] = attrs.field(
        init=False, default=attrs.Factory(lambda self: Flights(self._clock), takes_self=True)
    )

    @property
    def age(self) -> float:
        """Seconds since the index that was asked longest ago was asked."""
        now = self._clock.seconds()
        return now - min((share.part.asked_at for share in self.shares.values()), default=now)

    @property
    def remaining(self) -> float:
        """Seconds for which the list stays fresh."""
        return min(source.remaining(self.part(source)) for source in self._sources)

    def part(self, source: IndexClient) -> Part | None:
        """Give when an index was asked and what it said about its list."""
        share = self.shares.get(source)
        return share.part if share is not None else None

    async def load(self) -> None:
        """Take up what was kept by an earlier process, the first time that this is called."""
        if not self._loaded:
            await self._loading.join(None, self._load).wait()

    async def _load(self) -> None:
        generation = self.generation
        content = await self._work(self.folder.load)
        now = self._clock.seconds()
        shares = {}
        for source in self._sources:
            share = content.shares.get(source.identity)
            if share is not None:
                age = now + self._elapsed - share.part.asked_at
                # Nobody knows the age of what was asked for in the future: it is old.
                part = attrs.evolve(share.part, asked_at=now - (age if age >= 0 else source.ttl))
                shares[source] = attrs.evolve(share, part=part)
        names, forms = None, dict(content.forms)
        if len(shares) == len(content.shares) == len(self._sources):
            names = content.names
        if names is None:
            names, forms = await self._merged(shares), {}
        if self._loaded:  # and removed meanwhile
            return
        self.shares, self.names, self.forms = shares, names, forms
        self._loaded = True
        if self.generation != generation:
            self._mark_due()

    def forget(self) -> None:
        """
        Ask every index again before what it said is used again, except in an outage.

        :raises OSError: if that would not outlive the process; then nothing has changed
        """
        with self.folder.lock:
            self.folder.invalidate()
            self.generation += 1
            self._mark_due()

    def clear(self) -> Deferred[None]:
        """
        Forget it all for good, what is being fetched included.

        :return: a Deferred of its end on disk; nothing of it is used from now on
        :raises OSError: if the folder does not let it; then nothing has changed
        """
        with self.folder.lock:
            gone = self.folder.clear()
            self.generation += 1
            self.shares, self.names, self.forms = {}, None, {}
            self._loaded = True
        return self._work(lambda: rmtree(gone, ignore_errors=True))

    def _mark_due(self) -> None:
        # That includes validators: whoever forgets the list on purpose may mistrust them, too.
        self.shares = {
            source: attrs.evolve(share, part=attrs.evolve(share.part, due=True))
            for source, share in self.shares.items()
        }

    async def take(
        self,
        said: Mapping[IndexClient, Share],
        generation: int,
        before: Mapping[IndexClient, Share],
    ) -> ListFile | None:
        """
        Take over what indexes said.

        :param generation: the one in which they were asked
        :param before: what was held then
        :return: the names of all indexes together
        """
        return await self._changing.run(
            lambda: Deferred.fromCoroutine(self._take(said, generation, before))
        )

    async def _take(
        self,
        said: Mapping[IndexClient, Share],
        generation: int,
        before: Mapping[IndexClient, Share],
    ) -> ListFile | None:
        shares = dict(self.shares if generation == self.generation else before)
        forms: dict[Form, ListFile] = {}
        for source, new in said.items():
            # Of two flights the older one may come home later.
            old = shares.get(source)
            if old is None or old.part.asked_at <= new.part.asked_at:
                shares[source] = attrs.evolve(new, forms={})
                forms |= new.forms
        names = await self._merged(shares)
        if generation == self.generation:
            self.shares = shares
            if names is None or self.names is None or names.digest != self.names.digest:
                self.names, self.forms = names, {}
            self.forms |= forms
            self._keep()
        return names

    async def _merged(self, shares: Mapping[IndexClient, Share]) -> ListFile | None:
        known = [shares[source].names for source in self._sources if source in shares]
        lists = [names for names in known if names is not None]
        if len(known) < len(self._sources) or not lists:
            return None
        if len(known) == 1:
            return lists[0]
        before = [self.shares[s].names for s in self._sources if s in self.shares]
        if self.names is not None and _digests(before) == _digests(known):
            return self.names
        return await self._work(lambda: list_names.merge(lists, self.folder.draft))

    async def form(self, names: ListFile, form: Form) -> ListFile:
        """Give a form of a list, and make it if nobody wanted it before."""
        if self.names is names and (file := self.forms.get(form)) is not None:
            return file
        press = self._presses.join((names.digest, form), lambda: self._press(names, form))
        return await press.wait()

    async def _press(self, names: ListFile, form: Form) -> ListFile:
        made = await self._work(lambda: list_names.form(names, form, self.folder.draft))
        if self.names is not None and self.names.digest == names.digest:
            self.forms[form] = made
            self._keep()
        return made

    def _keep(self) -> Deferred[None]:
        """Let what there is, and no more, outlive the process, some time soon."""
        return self._saving.run(self._save).addErrback(_note)

    def _save(self) -> Deferred[None]:
        shares = {
            source.identity: attrs.evolve(
                share, part=attrs.evolve(share.part, asked_at=share.part.asked_at + self._elapsed)
            )
            for source, share in self.shares.items()
        }
        content, generation = Content(shares, self.names, dict(self.forms)), self.generation
        return self._work(lambda: self.folder.save(content, lambda: generation == self.generation))


def _digests(lists: Sequence[ListFile | None]) -> list[str | None]:
    return [names.digest if names is not None else None for names in lists]


def _note(failure: Failure) -> None:
    """Say why the list will not outlive the process."""
    if failure.check(OSError):
        _log.error("the project list cannot be kept: {error}", error=failure.value)
    else:
        _log.failure("while keeping the project list", failure=failure)
