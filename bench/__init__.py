"""Measurements, each a module with `run() -> str`: a table in Markdown, written to bench/results/ by `make bench`."""
