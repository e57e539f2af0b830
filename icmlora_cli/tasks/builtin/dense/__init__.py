"""Further tasks of every family, for meta-training episodes only, and the wording of each family's descriptions."""
