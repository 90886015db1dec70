"""Forecast of a run's needs of its devices, before there are any."""
