"""How fast the package is, measured: ratios within one run, medians, and the machine's own ceilings beside them."""
