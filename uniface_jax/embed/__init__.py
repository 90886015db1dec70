"""From photographs to a table of their faces' features, by as many processes as one starts."""
