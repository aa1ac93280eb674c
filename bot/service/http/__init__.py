"""The page, the metrics and the JSON documents over HTTP: read-only, off unless enabled, imported only then."""
