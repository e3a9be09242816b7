"""Arrow files (.arrow, .feather): a column is a field, both as streams and as files, read a batch at a time."""

from collections.abc import Iterator
from typing import Any, BinaryIO

from jobs.corpus.base import Fields, Format, Place, Read
from jobs.corpus.batches import ROWS_AT_ONCE, check_schema, items
from jobs.errors import InvalidInput, NotInstalled

MAGIC = b"ARROW1"
"""How the format with an index begins; one without is a stream, as Hugging Face's datasets are saved."""


def read(place: Place, fields: Fields, max_bytes: int) -> Iterator[Read]:
    """An item a row, numbered from 1. Empty cells are left out."""
    pyarrow = _pyarrow()
    with place.open() as stream:
        try:
            yield from items(_batches(place, fields, stream), fields, max_bytes)
        except (pyarrow.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            said = str(error).partition("\n")[0][:300]
            raise InvalidInput(f"{place.name}: cannot be read as Arrow: {said}") from error


FORMAT = Format("arrow", (".arrow", ".feather"), read)


def _batches(place: Place, fields: Fields, stream: BinaryIO) -> Iterator[Any]:
    from pyarrow import ipc

    begins = stream.peek(len(MAGIC))[: len(MAGIC)]  # type: ignore[attr-defined]
    if begins == MAGIC and not stream.seekable():
        raise InvalidInput(f"{place.name}: an Arrow file has its index at its end, and this one is read from the front")
    reader = ipc.open_file(stream) if begins == MAGIC else ipc.open_stream(stream)
    check_schema(place.name, reader.schema, fields)
    batches = map(reader.get_batch, range(reader.num_record_batches)) if begins == MAGIC else reader
    for batch in batches:
        yield from (batch.slice(at, ROWS_AT_ONCE) for at in range(0, batch.num_rows, ROWS_AT_ONCE))


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise NotInstalled(f"Arrow files need: pip install 'textmill[corpora]' ({error})") from error
    return pyarrow
