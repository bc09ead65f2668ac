"""The report: one HTML page that says what was found, and what may be claimed."""

from pared.report.page import page, write

__all__ = ["page", "write"]
