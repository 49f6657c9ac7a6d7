"""Measures of trained cohorts: of posteriors, of features, and of the weights' surroundings."""
