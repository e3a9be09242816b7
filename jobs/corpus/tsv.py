"""Tab-separated values: CSV with tabs, as spreadsheets write it."""

from functools import partial

from jobs.corpus.base import Format
from jobs.corpus.csv import CsvWriter, read

FORMAT = Format("tsv", (".tsv",), partial(read, delimiter="\t"), partial(CsvWriter, delimiter="\t"))
