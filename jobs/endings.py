"""What the exit codes of a worker mean: the one list of them, for supervisors, people and docs/operations.md."""

import signal

OK = 0
UNFIT = 64
"""Settings, flags or the database's revision do not fit; starting it again would not help."""
GAVE_UP = 69
"""The supervisor's: the worker died again and again before it was ready."""
DEVICE_LOST = 70
HUNG = 75

MEANINGS = {
    OK: "ended as told",
    1: "an error, or a hang that kept the interpreter to itself; its log says which",
    UNFIT: "it cannot run here",
    GAVE_UP: "it did not start, again and again",
    DEVICE_LOST: "the device is beyond repair",
    HUNG: "hung: something made no progress in time",
}
SIGNALS = {
    signal.SIGKILL: "killed, perhaps for lack of memory",
    signal.SIGSEGV: "segmentation fault",
    signal.SIGABRT: "aborted",
    signal.SIGBUS: "bus error",
    signal.SIGILL: "a machine instruction that this processor does not know",
}


def explain(code: int) -> str:
    """How a process ended, for people: `exit code 75: hung: ...`. `code` as subprocess has it: -N for a signal."""
    if code < 0:
        number = -code
        how, meaning = f"signal {number}", SIGNALS.get(number)  # type: ignore[call-overload]
    else:
        how, meaning = f"exit code {code}", MEANINGS.get(code)
    return f"{how}: {meaning}" if meaning else how


def shell_code(code: int) -> int:
    """The exit code as a shell would tell it: 128 + N for a death by signal N."""
    return 128 - code if code < 0 else code
