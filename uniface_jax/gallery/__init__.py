"""Galleries: features of known faces in a folder, searched exactly, changed safely."""
