"""Where a list of runs executes: one file an engine, behind the one small interface of ``base``."""
