"""Photographs to aligned faces."""
