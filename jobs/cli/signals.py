"""How a command that is told to end does so politely."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and a closed terminal count as Ctrl-C; what nohup or a shell's `&` made ignored stays so."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    heard = [
        sign for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(sign) != signal.SIG_IGN
    ]
    before = {sign: signal.signal(sign, interrupt) for sign in heard}
    try:
        yield
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)
