"""How is a run shown to a reader? One offline page for the browser."""

from modscope.report.page import write_report

__all__ = ["write_report"]
