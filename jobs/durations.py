"""How long something takes, in words: the one wording of the command line and of the dashboard."""

UNITS = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def duration(seconds: float) -> str:
    """`850 ms`, `4.2 s`, `12 s`, `3 min 20 s`, `2 h 5 min`, `4 d 3 h`: two units at most; below zero is none."""
    if 0 < seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s".replace(".0 s", " s")
    left, parts = round(seconds), list[str]()
    for unit, size in UNITS:
        whole, left = divmod(left, size)
        if whole:
            parts.append(f"{whole} {unit}")
        elif parts:
            break
    return " ".join(parts[:2])
