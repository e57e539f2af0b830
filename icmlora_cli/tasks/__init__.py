"""Tasks as data, without torch: task files, sources of examples, splits, metrics and the built-in tasks."""
