"""Is it more than chance? Tests, combinations and corrections, without torch."""

from modscope.statistics.combined import bates, chi_square_of_ranks, fisher, stouffer
from modscope.statistics.comparison import Alternative, Comparison, compare
from modscope.statistics.corrections import benjamini_hochberg, holm, max_t, samples_needed
from modscope.statistics.experiment import Null, Statistic
from modscope.statistics.intervals import bootstrap_interval, prediction_interval
from modscope.statistics.sequential import EarlyStop, anytime_p_value, besag_clifford

__all__ = [
    "Alternative",
    "Comparison",
    "EarlyStop",
    "Null",
    "Statistic",
    "anytime_p_value",
    "bates",
    "benjamini_hochberg",
    "besag_clifford",
    "bootstrap_interval",
    "chi_square_of_ranks",
    "compare",
    "fisher",
    "holm",
    "max_t",
    "prediction_interval",
    "samples_needed",
    "stouffer",
]
