"""PostgreSQL connections that give up on a server that says nothing.

A server whose processes are stopped, or wait for a disk that hangs, keeps its connections: its kernel acknowledges
what is sent to it, so that neither keepalives nor `tcp_user_timeout` notice, and its `statement_timeout` stands still.
"""

from functools import cache
from typing import Any

LOOK_S = 0.1
"""Between two looks for Ctrl-C, psycopg's own choice."""


def connect(answer_s: float, /, *args: Any, **given: Any) -> Any:
    """A connection on which every statement raises OperationalError after `answer_s` of silence."""
    made = _kind().connect(*args, **given)
    made.answer_s = answer_s
    return made


@cache
def _kind() -> Any:
    import psycopg

    class Connection(psycopg.Connection[Any]):
        answer_s: float

        def wait(self, gen: Any, interval: float = LOOK_S, timeout: float | None = None) -> Any:
            """Every exchange with the server goes through here (psycopg 3.3.9)."""
            if timeout is not None:
                return super().wait(gen, interval, timeout)
            try:
                return super().wait(gen, interval, self.answer_s)
            except psycopg.errors._WaitTimeout as error:
                self.pgconn.finish()  # what it is still to answer must not be taken for the answer to another question
                raise psycopg.OperationalError(f"no answer within {self.answer_s:.3g} s") from error

    return Connection
