"""What trained cohorts are measured by."""
