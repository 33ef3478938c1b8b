"""Data sets as they lie on the disk: where their files are, strict readers of each format, and a cache of arrays."""
