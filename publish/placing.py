"""Which definitions go into the set-up cell: what is used before it is shown, or never shown."""

from __future__ import annotations

from publish.asked import Asked
from publish.library import Definition, Library
from publish.sources import Source

Place = tuple[int, int, int]  # cell, line of the statement, rank within it


def shown_places(asked: Asked) -> dict[int, tuple[Place, str]]:
    """id(definition) -> where it is shown, and whether as `show` or `task`."""
    return {
        id(item): ((request.cell, request.first, rank), request.kind)
        for request in asked.requests
        if request.kind != "plain"
        for rank, item in enumerate(request.definitions)
    }


def setup_definitions(source: Source, asked: Asked, library: Library) -> list[Definition]:
    """Definitions for the set-up cell, in an order in which they can run.

    A definition is needed there if nothing shows it, or if something that runs before the cell
    that shows it uses it. A task that is used before its own cell is an error: its place in the
    set-up cell would give the solution away.
    """
    places = shown_places(asked)
    needed: dict[int, Definition] = {}

    def want(items: list[Definition], before: Place, user: str) -> bool:
        grew = False
        for item in items:
            place, kind = places.get(id(item), ((len(source.cells), 0, 0), "never"))
            if id(item) in needed or place < before:
                continue
            if kind == "task":
                path, line = source.cells[place[0]].where(place[1])
                raise source.cells[before[0]].error(
                    f"{user} uses `{item.names[0]}` before the cell of its task ({path}:{line})",
                    before[1] or 1,
                )
            needed[id(item)] = item
            grew = True
        return grew

    for request in asked.requests:
        if request.kind == "plain":
            hidden = [d for d in request.definitions if id(d) not in places]
            want(hidden, (request.cell, request.first, 0), "the import")
    for cell, names in asked.own.items():
        used = [asked.meaning[name] for name in sorted(names.free) if name in asked.meaning]
        want(library.closure(used), (cell, 10**6, 0), "this cell")
    for request in asked.requests:
        if request.kind != "plain":
            for rank, item in enumerate(request.definitions):
                at = (request.cell, request.first, rank)
                want(library.closure(library.needs(item, eager_only=True)), at, _name(item))
                want(_never_shown(library.needs(item), places), at, _name(item))
    grew = True
    while grew:
        grew = False
        for item in list(needed.values()):
            at_once = library.closure(library.needs(item, eager_only=True))
            grew |= want(at_once, (0, 0, 0), _name(item))
            grew |= want(_never_shown(library.needs(item), places), (0, 0, 0), _name(item))
    return library.rank(list(needed.values()))


def _never_shown(items: list[Definition], places: dict) -> list[Definition]:
    return [item for item in items if id(item) not in places]


def _name(item: Definition) -> str:
    return f"`{item.names[0]}`"
