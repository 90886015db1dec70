"""Size of an aligned face, which data, networks and exports share.

It stands alone so that networks import it without the decoders of images.
"""

IMAGE_SIZE = 112  # pixels, height and width
