"""Plain text tables that a terminal shows and `cut`, `awk` and `grep` understand."""

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Aligned columns under a header; two spaces between, none at line ends."""
    lines = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join("  ".join(line).rstrip() for line in padded)


def facts(pairs: Sequence[tuple[str, object]]) -> str:
    """`name: value` lines with the values aligned; pairs without a value are left out."""
    said = [(name, str(value)) for name, value in pairs if value not in (None, "", {}, ())]
    width = max((len(name) for name, _ in said), default=0) + 1
    return "\n".join(f"{name + ':':<{width}} {value}" for name, value in said)
