"""In which order the items of a chunk run after a worker died with some of them in flight."""

from collections.abc import Iterator, Sequence

from worker.engines.base import Work
from worker.held import Held


def ordered(held: Held) -> list[int]:
    """Indexes of the chunk's suspects, those that ended a worker alone behind the others: whoever is innocent gets its
    result before the culprit's next turn, and what is killed at random is seldom the same item again."""
    suspects = held.claim.suspects
    if not suspects:
        return []
    mine = [index for index, seq in enumerate(held.seqs) if seq in suspects]
    return sorted(mine, key=lambda index: suspects[held.seqs[index]])


def apart(works: Sequence[Work], suspects: Sequence[int]) -> Iterator[list[Work]]:
    """What may run together: the requests of everyone else, then those of each suspect."""
    by_item: dict[int, list[Work]] = {}
    for work in works:
        by_item.setdefault(work.key[1], []).append(work)  # type: ignore[index]
    if others := [work for index, mine in by_item.items() if index not in suspects for work in mine]:
        yield others
    for index in suspects:
        if index in by_item:
            yield by_item[index]
