"""The --config flag of command lines that take a recipe: its default, and errors in one line."""

from pathlib import Path

from uniface_jax.errors import UserError

DEMO = Path(__file__).resolve().parents[2] / "configs" / "demo.py"


def prepare(argv: list[str]) -> list[str]:
    """Adds the demo's recipe where none is given; UserError for no such recipe or no such key.

    A default of the flag itself would be loaded, and its overrides fail, before cli.run can turn
    errors into one line.
    """
    from uniface_jax.config import base, flatten

    keys, recipe = flatten(base()), None
    for argument, following in zip(argv[1:], [*argv[2:], ""], strict=True):
        name, equals, value = argument.lstrip("-").partition("=")
        key = name.removeprefix("config.")
        if name == "config":
            recipe = value if equals else following
        elif key != name and key not in keys:
            siblings = [other for other in keys if other.startswith(key.rpartition(".")[0])]
            raise UserError(f"{argument}: no such key; there are {', '.join(siblings)}")
    if recipe is None:
        return [argv[0], f"--config={DEMO}", *argv[1:]]
    if not Path(recipe.split(":")[0]).is_file():
        raise UserError(f"--config={recipe}: no such file; recipes are in {DEMO.parent}")
    return argv
