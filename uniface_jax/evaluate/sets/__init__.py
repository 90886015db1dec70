"""Images that a protocol compares, as files hold them."""
