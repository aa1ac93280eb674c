"""Candles of the past: fetched from an exchange page by page, kept in one Parquet file for each symbol and timeframe.

A page is on the disk before the next one is asked for, in a journal beside the Parquet file (``pages``); the journal is
worked into the file at the end, whole or not at all (``store``). The file itself says which times were asked for, so
that what the exchange does not have is not asked for again.
"""
