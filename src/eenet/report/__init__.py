"""Tables and figures of accuracy-vs-budget curves."""
