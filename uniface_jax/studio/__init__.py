"""Page in a browser on this machine: comparing, searching, and what a threshold costs."""
