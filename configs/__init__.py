"""The recipes, a file a family: python -m uniface_jax.train --config=casia:uce_m."""
