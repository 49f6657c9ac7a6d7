"""Data sets that are drawn, in place of those that cannot be downloaded."""
