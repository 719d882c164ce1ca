"""Which definitions go into the set-up cell: what is used before it is shown, or never shown."""

from __future__ import annotations

from publish.asked import Asked, Request
from publish.library import Library
from publish.modules import Definition
from publish.sources import Source

Place = tuple[int, int, int]  # cell, line of the statement, rank within it
START: Place = (0, 0, 0)


def setup_definitions(source: Source, asked: Asked, library: Library) -> list[Definition]:
    """Definitions for the set-up cell, in an order in which they can run.

    A definition is needed there if nothing shows it, or if something that runs before the cell
    that shows it uses it. A task that is used before its own cell is an error: its place in the
    set-up cell would give the solution away.
    """
    placing = _Placing(source, asked, library)
    for request in asked.requests:
        placing.add_request(request)
    for cell, names in asked.own.items():
        used = [asked.meaning[name] for name in sorted(names.free) if name in asked.meaning]
        placing.add(library.closure(used), (cell, 10**6, 0), "this cell")
    placing.close()
    return library.rank(list(placing.needed.values()))


class _Placing:
    """Definitions found to be needed in the set-up cell so far."""

    def __init__(self, source: Source, asked: Asked, library: Library):
        self.source, self.library = source, library
        self.needed: dict[int, Definition] = {}
        self.shown: dict[int, tuple[Place, str]] = {
            id(item): ((request.cell, request.first, rank), request.kind)
            for request in asked.requests
            if request.kind != "plain"
            for rank, item in enumerate(request.definitions)
        }

    def add(self, items: list[Definition], before: Place, user: str) -> None:
        """Take in those of `items` that no cell shows earlier than the place `before`."""
        for item in items:
            place, kind = self.shown.get(id(item), (None, "never"))
            if id(item) in self.needed or (place is not None and place < before):
                continue
            if kind == "task":
                path, line = self.source.cells[place[0]].where(place[1])
                raise self.source.cells[before[0]].error(
                    f"{user} uses `{item.names[0]}` before the cell of its task ({path}:{line})",
                    before[1] or 1,
                )
            self.needed[id(item)] = item

    def add_request(self, request: Request) -> None:
        """What a plain import names and nothing shows; what a shown definition needs."""
        for rank, item in enumerate(request.definitions):
            at = (request.cell, request.first, rank)
            if request.kind != "plain":
                self.add_needs_of(item, at)
            elif id(item) not in self.shown:
                self.add([item], at, "the import")

    def add_needs_of(self, item: Definition, at: Place) -> None:
        """What `item`, defined at the place `at`, needs at once, and what it needs ever.

        A function that it calls later may be shown later; if it is called before, some cell
        calls it, and that cell is looked at.
        """
        user = f"`{item.names[0]}`"
        at_once = self.library.needs(item, eager_only=True)
        self.add(self.library.closure(at_once), at, user)
        ever = self.library.needs(item)
        self.add([other for other in ever if id(other) not in self.shown], at, user)

    def close(self) -> None:
        """Add what the needed ones need, until nothing new comes."""
        done = 0
        while done < len(self.needed):
            item = list(self.needed.values())[done]
            self.add_needs_of(item, START)
            done += 1
