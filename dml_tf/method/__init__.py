"""The method: a cohort, its losses and its optimizers."""
