"""Measurements: what docs/ quotes comes out of these commands."""
