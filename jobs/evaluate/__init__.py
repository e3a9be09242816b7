"""How good a job's results are: its outputs beside gold values, with what chance may have done to the figures."""

from jobs.evaluate.cases import Case, cases
from jobs.evaluate.comparing import Comparison, compared
from jobs.evaluate.judging import Judgement, judged
from jobs.evaluate.measures import measure_for
from jobs.evaluate.report import Report, evaluated

__all__ = ["Case", "Comparison", "Judgement", "Report", "cases", "compared", "evaluated", "judged", "measure_for"]
