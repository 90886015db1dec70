"""Names the packages; the metadata is in pyproject.toml.

The recipes stand once, in configs/, and are installed as uniface_jax.configs. pyproject.toml can
either find packages or name them, not both.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["uniface_jax*"]), "uniface_jax.configs"],
    package_dir={"uniface_jax.configs": "configs"},
)
