"""Flag --config of the commands that take a recipe, found by its name from any folder.

A recipe is a Python file with get_config(), or get_config(variant) for what stands after a colon:
NAME[:VARIANT] of the project's own, or PATH.py[:VARIANT].
"""

import importlib.util
import inspect
import json
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from uniface_jax.errors import UserError
from uniface_jax.registry import import_parts

flags.disclaim_key_flags()  # --help lists them with the command that defines them here

DEFAULT = "demo"
FLAG = "config"


class Located(NamedTuple):
    """Where a recipe is: its file, and the variant, None where none is named; given: as it was."""

    given: str
    file: Path
    variant: str | None

    @property
    def argument(self) -> str:
        """Return it as config_flags takes it."""
        return str(self.file) if self.variant is None else f"{self.file}:{self.variant}"

    @property
    def name(self) -> str:
        """Return NAME[:VARIANT], by which the log and default folders call the recipe."""
        return self.file.stem if self.variant is None else f"{self.file.stem}:{self.variant}"


def folder() -> Path:
    """Return the folder of the project's recipes: in the installed package, or beside it."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def names() -> list[str]:
    """List the names of the project's recipe files."""
    return sorted(path.stem for path in folder().glob("*.py") if path.stem != "__init__")


def full_names() -> list[str]:
    """List every recipe of the project as --config takes it: NAME:VARIANT, NAME for a default."""
    found = []
    for name in names():
        module = load_module(locate(name))
        default = getattr(module, "DEFAULT", "")
        found += [
            name if variant == default else f"{name}:{variant}" for variant in module.VARIANTS
        ]
    return found


def locate(recipe: str) -> Located:
    """Find the file of NAME[:VARIANT] or PATH.py[:VARIANT].

    Raises UserError, which lists the names or says where a former recipe went, for no such file.
    """
    given, colon, after = recipe.partition(":")
    variant = after if colon else None
    if given.endswith(".py"):
        if Path(given).is_file():
            return Located(recipe, Path(given), variant)
        name = Path(given).stem
        now = _former(name) or (name if name in names() else None)
        if now:
            again = f"{now}:{after}" if colon else now
            raise UserError(f"--{FLAG}={recipe}: no such file; it is --{FLAG}={again} now")
        raise UserError(f"--{FLAG}={recipe}: no such file; recipes by name: {', '.join(names())}")
    if given in names():
        return Located(recipe, folder() / f"{given}.py", variant)
    if now := _former(given):
        raise UserError(f"--{FLAG}={recipe}: no such recipe; it is --{FLAG}={now} now")
    raise UserError(
        f"--{FLAG}={recipe}: no such recipe; there are {', '.join(names())}, or give a path that "
        "ends in .py"
    )


def _former(stem: str) -> str | None:
    """Return today's name of what was a file of its own: casia_r50_uce_m -> casia:uce_m."""
    found = re.fullmatch(
        r"(casia)_r50_(\w+)|(ms1mv[23])_(r50|r100)|(glint360k)_r100|(webface4m)_r50|"
        r"(webface42m)_r200",
        stem,
    )
    return ":".join(filter(None, found.groups())) if found else None


def load_module(recipe: Located) -> ModuleType:
    """Run the recipe's file; UserError, in one line, whatever is wrong with it."""
    name = f"{FLAG}_{recipe.file.stem}"
    spec = importlib.util.spec_from_file_location(name, recipe.file)
    assert spec is not None  # of a name that ends in .py there is one
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for the types of a module
    with _in_one_line(recipe):
        spec.loader.exec_module(module)
    if not callable(getattr(module, "get_config", None)):
        raise UserError(f"--{FLAG}={recipe.given}: {recipe.file} has no function get_config()")
    return module


def load(recipe: Located) -> tuple[ModuleType, ConfigDict]:
    """Run the recipe's file: its module, and what get_config returns.

    Raises UserError, in one line, whatever is wrong with the file or the variant.
    """
    module = load_module(recipe)
    arguments = [] if recipe.variant is None else [recipe.variant]
    with _in_one_line(recipe):
        try:
            inspect.signature(module.get_config).bind(*arguments)
        except TypeError as e:
            takes = "a variant: NAME:VARIANT" if recipe.variant is None else "no variant"
            raise UserError(f"takes {takes}") from e
        config = module.get_config(*arguments)
        if not isinstance(config, ConfigDict):
            raise UserError(f"get_config() returned {type(config).__name__}, no ConfigDict")
    return module, config


@contextmanager
def _in_one_line(recipe: Located) -> Iterator[None]:
    """Turn whatever a recipe's file raises into a UserError that names the file's line."""
    given = f"--{FLAG}={recipe.given}"
    try:
        yield
    except UserError as e:
        raise UserError(f"{given}: {e}") from e
    except Exception as e:  # somebody's own file may raise anything
        raise UserError(f"{given}: {_place(e, recipe.file)}{type(e).__name__}: {e}") from e


def _place(error: Exception, file: Path) -> str:
    """Return "line N: " of the last line of the file that ran, "" where none did."""
    if isinstance(error, SyntaxError):
        return ""  # which says it itself
    frames = traceback.extract_tb(error.__traceback__)
    ran = [frame.lineno for frame in frames if Path(frame.filename) == file.absolute()]
    return f"line {ran[-1]}: " if ran else ""


def define(help_text: str) -> Any:
    """Define --config in the calling command: the holder of the flag."""
    return config_flags.DEFINE_config_file(FLAG, None, help_text)


def define_print_config() -> Any:
    """Define --print_config in the calling command: the holder of the flag."""
    return flags.DEFINE_bool(
        "print_config", False, "Print the config with all its keys, as JSON, and end."
    )


def named_keys(arguments: Sequence[str]) -> list[str]:
    """List the config keys that a command line gives, by their dotted paths.

    Example:
        >>> named_keys(["train", "--config=demo", "--config.optim.lr=0.2", "--noconfig.debug.nans"])
        ['optim.lr', 'debug.nans']
    """
    found = (re.match(rf"--?(?:no)?{FLAG}\.([^=]+)", argument) for argument in arguments)
    return [match[1] for match in found if match]


def print_config(config: ConfigDict) -> None:
    """Print the config with all its keys as config.json of a workdir has it."""
    print(json.dumps(config.to_dict(), indent=2))


def located() -> Located:
    """Return the recipe that was given, once flags are parsed."""
    argument = config_flags.get_config_filename(flags.FLAGS[FLAG])
    file, colon, variant = argument.partition(":")
    return Located(argument, Path(file), variant if colon else None)


def prepare(argv: list[str], default: str | None = DEFAULT) -> list[str]:
    """Return the command line with the path of the recipe, which is loaded to see that it is one.

    The modules of --config.imports are imported first, because they add keys to those of recipes.
    default: the recipe where none is given; None for a command that does without. Raises UserError
    for no such recipe, and for an override of a key that it does not have. (A default of the flag
    itself would be loaded, and its overrides fail, before cli.run can turn errors into one line.)
    """
    given, rest = default, list[str]()
    arguments = iter(argv[1:])
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if argument == "--":
            rest += [argument, *arguments]
        elif name in (f"-{FLAG}", f"--{FLAG}"):
            given = value if equals else next(arguments, "")
        else:
            rest.append(argument)
    if given is None:
        return argv
    recipe = locate(given)
    rest = _with_imports(rest)
    _, config = load(recipe)
    _check_keys(rest, config)
    return [argv[0], f"--{FLAG}={recipe.argument}", *rest]


def _with_imports(arguments: list[str]) -> list[str]:
    """Import the modules of --config.imports=A,B; return the lists of names as tuples."""
    modules, arguments = _as_tuple(arguments, "imports")
    import_parts(modules, f"--{FLAG}.imports")
    return _as_tuple(arguments, "hooks.names")[1]


def _as_tuple(arguments: list[str], key: str) -> tuple[list[str], list[str]]:
    """Return the names in --config.KEY=A,B, and the arguments with them as config_flags' tuple."""
    flag = f"--{FLAG}.{key}="
    found: list[str] = []
    for argument in arguments:
        if argument.startswith(flag):
            names = argument.removeprefix(flag).strip("()[]").split(",")
            found += [name.strip(" '\"") for name in names if name.strip()]
    others = [argument for argument in arguments if not argument.startswith(flag)]
    return found, [*([f"{flag}{tuple(found)}"] if found else []), *others]


def _check_keys(arguments: list[str], config: ConfigDict) -> None:
    keys = list(_keys("", config.to_dict()))
    for argument in arguments:
        named = named_keys([argument])
        if named and named[0] not in keys:
            beside = named[0].rpartition(".")[0]
            siblings = [key for key in keys if key.startswith(beside)]
            raise UserError(f"{argument}: no such key; there are {', '.join(siblings or keys)}")


def _keys(prefix: str, tree: Mapping[str, Any]) -> list[str]:
    found = []
    for key, value in tree.items():
        found.append(prefix + key)
        if isinstance(value, Mapping):
            found += _keys(f"{prefix}{key}.", value)
    return found
