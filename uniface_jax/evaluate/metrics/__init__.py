"""Numbers from scores: ROC curves, verification, identification."""
