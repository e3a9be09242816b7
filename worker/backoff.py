"""How long to wait before trying again what a server did not answer."""

import random
from collections.abc import Iterator

FIRST_S, LONGEST_S = 0.1, 5.0


def backoff(first_s: float = FIRST_S, longest_s: float = LONGEST_S) -> Iterator[float]:
    """Ever longer waits up to `longest_s`, each +-50 %, so that workers do not come back all at once."""
    wait = first_s
    while True:
        yield wait * random.uniform(0.5, 1.5)
        wait = min(longest_s, wait * 2)
