"""What a run needs of its devices, before there are any."""
