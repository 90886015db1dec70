"""Results as files: JSON, tables, plots, one HTML page."""
