"""A report as a file, by what its name ends in."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from bot.backtest.report.given import Report

Maker = Callable[[Report], bytes]


class ReportError(Exception):
    """What stands in the way of a report, as one line for the user."""


def checked(path: Path) -> None:
    """Raises ReportError if no report could be written there: asked before a backtest that may take long."""
    _maker(path)
    try:
        if path.is_dir():
            raise ReportError(f"--report {path} is a folder")
        if not path.parent.is_dir():
            raise ReportError(f"--report {path}: there is no folder {path.parent}")
    except OSError as error:
        raise ReportError(f"--report {path}: {error.strerror or error}") from error


def write(path: Path, report: Report) -> None:
    """Writes the whole file, or leaves what was there. Raises ReportError."""
    contents = _maker(path)(report)
    aside = path.with_name(f".{path.name}.new")
    try:
        aside.write_bytes(contents)
        aside.replace(path)
    except OSError as error:
        with suppress(OSError):
            aside.unlink()
        raise ReportError(f"cannot write {path}: {error.strerror or error}") from error


def _maker(path: Path) -> Maker:
    match path.suffix.lower():
        case ".html":
            from bot.backtest.report.page import page

            return page
        case ".png":
            try:
                from bot.backtest.report.picture import picture
            except ModuleNotFoundError as error:
                if error.name != "matplotlib":
                    raise
                text = "a picture needs matplotlib, which is not installed: pip install '.[report]', or use .html"
                raise ReportError(text) from None
            return picture
    raise ReportError(f"--report {path}: the name must end in .html or .png")
