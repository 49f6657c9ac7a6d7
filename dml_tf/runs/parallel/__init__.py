"""Peers on several devices or in several processes."""
