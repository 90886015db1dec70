"""IJB-B and IJB-C: templates, 1:1 verification, 1:N search."""
