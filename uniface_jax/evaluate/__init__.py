"""Embeddings of images and the protocols that are computed from them."""
