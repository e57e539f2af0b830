"""One module per verb: ``run(...) -> frozen Result``. No printing, no argv; progress goes through one callback."""
