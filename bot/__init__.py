"""Paperloop: a paper-trading daemon whose books can be proven."""

__version__ = "0.1.0"
