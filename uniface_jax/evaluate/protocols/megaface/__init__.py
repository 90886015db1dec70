"""MegaFace: identification and verification among distractors."""
