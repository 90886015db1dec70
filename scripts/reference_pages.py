"""Makes the reference's pages from the package: its rooms, its commands' flags, its config's keys.

docs_site.py puts them into the site while it is built, so that they cannot be out of date. Commands
and config are imported (they start neither JAX's devices nor TensorFlow); the pages of the Python
interface hold mkdocstrings' directives, which read the sources and import nothing.
"""

import ast
import importlib
import importlib.util
import inspect
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import flags
from markdown_text import escape, table  # the sibling script

import uniface_jax
from uniface_jax import config as configs
from uniface_jax import losses
from uniface_jax.config import keys as keys_and_defaults

PACKAGE = Path(uniface_jax.__file__).resolve().parent


# The Python interface


def modules_of(package: Path) -> dict[str, list[str]]:
    """Return {dotted package: its modules that readers of the reference may want, in order}.

    A package whose __init__ defines or exports something is its own first module. Commands are
    left out: they have a page of their own.
    """
    found: dict[str, list[str]] = {}
    for init in sorted(package.rglob("__init__.py")):
        folder = init.parent
        name = ".".join((package.name, *folder.relative_to(package).parts))
        modules = [name] if _has_content(init) or init.parent == package else []
        for file in sorted(folder.glob("*.py")):
            if not file.stem.startswith("_") and _has_content(file) and not _is_command(file):
                modules.append(f"{name}.{file.stem}")
        if modules:
            found[name] = modules
    return found


def _has_content(file: Path) -> bool:
    """Return whether a module defines or exports a public name."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            return True
        names = node.targets if isinstance(node, ast.Assign) else []
        names = [node.target] if isinstance(node, ast.AnnAssign) else names
        if any(isinstance(name, ast.Name) and not name.id.startswith("_") for name in names):
            return True
    return False


def _is_command(file: Path) -> bool:
    return 'if __name__ == "__main__":' in file.read_text()


def api_page(package: str, modules: Sequence[str]) -> str:
    """Return the page of one package: a section a module, for mkdocstrings to fill."""
    sections = [f"# {package}\n"]
    for module in modules:
        head = package if module == package else module.rpartition(".")[2]
        options = ["show_root_heading: false", "show_root_toc_entry: false"]
        if module == PACKAGE.name:
            options.append(f"members: [{', '.join(public_names())}]")
        lines = "".join(f"      {option}\n" for option in options)
        sections.append(f"## {head}\n\n::: {module}\n    options:\n{lines}")
    return "\n".join(sections)


def public_names() -> list[str]:
    """Return the names that `from uniface_jax import …` is for; its packages have own pages."""
    names = [name for name in uniface_jax.__all__ if not name.startswith("__")]
    return [name for name in names if not (PACKAGE / name).is_dir()]


def api_pages(package: Path = PACKAGE) -> dict[str, str]:
    """Return {file name below reference/: page} of every package with public modules."""
    found = modules_of(package)
    return {f"python/{name}.md": api_page(name, modules) for name, modules in found.items()}


# Commands


@dataclass(frozen=True)
class Command:
    """One command line: its module, what it says of itself, its flags in their order."""

    module: str
    description: str
    flags: Sequence[flags.Flag]

    @property
    def name(self) -> str:
        """Return the word behind `uniface`."""
        return self.module.rpartition(".")[2].replace("_", "-")


def command_modules(package: Path = PACKAGE) -> list[str]:
    """Return the modules that `python -m` runs, by name: packages with a __main__, and doors."""
    doors = [file.stem for file in package.glob("*.py") if _is_command(file)]
    rooms = [file.parent.name for file in package.glob("*/__main__.py")]
    return [f"{package.name}.{name}" for name in sorted(doors + rooms)]


def load_command(module: str) -> Command:
    """Import a command alone and return it; afterwards absl knows the flags that it knew before.

    Two commands may have a flag of one name, and in one process absl knows each name once.
    """
    is_room = importlib.util.find_spec(f"{module}.__main__") if _is_package(module) else None
    name = f"{module}.__main__" if is_room else module
    with _no_flags():
        before = sys.modules.pop(name, None)
        loaded = importlib.import_module(name)
        defined = [flag for by_module in _take_flags().values() for flag in by_module]
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
    return Command(module, inspect.getdoc(loaded) or "", defined)


def _is_package(module: str) -> bool:
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.submodule_search_locations is not None


@contextmanager
def _no_flags() -> Iterator[None]:
    """Take the flags of the package's modules out of absl, and put them back in the end."""
    before = _take_flags()
    yield
    _take_flags()
    for module, defined in before.items():
        for flag in defined:
            flags.FLAGS[flag.name] = flag
            flags.FLAGS.register_flag_by_module(module, flag)


def _take_flags() -> dict[str, list[flags.Flag]]:
    """Remove the flags of the package's modules from absl; return them by module."""
    by_module = flags.FLAGS.flags_by_module_dict()
    taken = {
        module: list(defined)
        for module, defined in by_module.items()
        if module.startswith(f"{PACKAGE.name}.")
    }
    for defined in taken.values():
        for flag in defined:
            if flag.name in flags.FLAGS:
                delattr(flags.FLAGS, flag.name)
    return taken


def commands_page(commands: Iterable[Command]) -> str:
    """Return the page of all commands, with the type, default and help of every flag."""
    parts = [
        "# Commands\n\n"
        "`uniface COMMAND …` and `python -m uniface_jax.COMMAND …` are the same. A flag is given "
        "as `--flag=value`; one that is on or off as `--flag` or `--noflag`. `--help` prints what "
        "this page holds.\n"
    ]
    for command in commands:
        parts.append(f"## {command.name}\n")
        parts.append(_as_markdown(command.description))
        if command.flags:
            rows = [(f"`--{f.name}`", _kind(f), _default(f), _help(f)) for f in command.flags]
            parts.append(table("flags", ("flag", "type", "default", "what it is"), rows))
        else:
            parts.append("No flags.\n")
    return "\n".join(parts)


def _as_markdown(docstring: str) -> str:
    """Return a command's docstring with its usage lines as code blocks."""
    lines: list[str] = []
    in_code = False
    for line in docstring.splitlines():
        code = line.startswith(("python ", "    "))
        if code != in_code:
            lines += ["```text"] if code else ["```", ""]
            in_code = code
        lines.append(line)
    return "\n".join(lines + (["```"] if in_code else [])) + "\n"


def _kind(flag: flags.Flag) -> str:
    if getattr(flag.parser, "enum_values", None):
        return "one of " + ", ".join(f"`{value}`" for value in flag.parser.enum_values)
    kind = flag.flag_type().removesuffix(" string").replace("comma separated", "comma-separated")
    words = getattr(flag.parser, "syntactic_help", "")
    limits = words.partition(" in the range ")[2]
    return f"{kind} in {limits}" if limits else kind


def _help(flag: flags.Flag) -> str:
    """Return a flag's help without the values and the advice that absl adds to it."""
    text = re.sub(r"^<[^>]*>: ", "", flag.help or "")
    return escape(text.replace("; repeat this option to specify a list of values", ""))


def _default(flag: flags.Flag) -> str:
    value = flag.default_as_str
    return "" if value is None else f"`{value.strip(chr(39))}`"


# Config keys


@dataclass(frozen=True)
class Key:
    """One key of the config: its dotted path, default, allowed values and what it is."""

    path: str
    default: Any
    allowed: str
    comment: str


def comments_of(source: str) -> dict[str, str]:
    """Return {dotted key: comment} of lines `config.KEY = …  # comment` in a module's source.

    A comment may stand on the lines above the assignment instead, or before it as well.
    """
    found: dict[str, str] = {}
    pending: list[str] = []
    path: list[str] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            text = token.string.lstrip("# ")
            if path:
                found[".".join(path)] = " ".join([*pending, text])
            else:
                pending.append(text)
        elif token.type == tokenize.NEWLINE:
            if path and pending:
                found.setdefault(".".join(path), " ".join(pending))
            path, pending = [], []
        elif token.type == tokenize.NAME and not path:
            path = _assigned_key(token.line)
    return found


def _assigned_key(line: str) -> list[str]:
    """Return the parts of KEY in a line `config.KEY = …`; none for any other line."""
    name, equals, _ = line.strip().partition(" = ")
    first, *rest = name.split(".")
    return rest if equals and first == "config" else []


def config_keys() -> list[Key]:
    """Return every key of the config, in the order in which its source describes them."""
    comments = comments_of(inspect.getsource(keys_and_defaults))
    order = {path: place for place, path in enumerate(comments)}
    defaults = configs.flatten(configs.base())
    return [
        Key(path, defaults[path], configs.allowed(path), comments.get(path, ""))
        for path in sorted(defaults, key=lambda path: order.get(path, len(order)))
    ]


def config_page(keys: Iterable[Key]) -> str:
    """Return the page of all keys, in sections by their first part, and of the losses' own."""
    sections: dict[str, list[Key]] = {}
    for key in keys:
        sections.setdefault(key.path.rpartition(".")[0], []).append(key)
    parts = [
        "# Config keys\n\n"
        "Every key of a recipe, with its default. Give another value as `--config.KEY=VALUE`. "
        "A default of none means that the part which the key is for has its own: a loss, a "
        "network. `uniface train --config=RECIPE --print_config` prints what a recipe makes of "
        "them.\n"
    ]
    for section, members in sections.items():
        parts.append(f"## {section or 'The run'}\n")
        rows = [
            (f"`{key.path}`", _shown(key.default), escape(key.allowed), escape(key.comment))
            for key in members
        ]
        parts.append(table("keys", ("key", "default", "allowed", "what it is"), rows))
    parts.append("## What each loss takes\n")
    parts.append(
        "The defaults that a loss has of its own; a key that a loss does not list is refused.\n"
    )
    parts.append(table("losses", ("loss", "its keys and defaults"), list(_losses())))
    return "\n".join(parts)


def _losses() -> Iterator[tuple[str, str]]:
    for name, function in losses.LOSSES.items():
        parameters = inspect.signature(function).parameters.values()
        yield (
            f"`{name}`",
            ", ".join(f"`{parameter.name}` {parameter.default}" for parameter in parameters),
        )


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if value == "":
        return "empty"
    if isinstance(value, list):
        return f"`({', '.join(map(str, value))})`"
    return f"`{value}`"


def pages() -> Mapping[str, str]:
    """Return every generated page by its path below docs/."""
    commands = [load_command(module) for module in command_modules()]
    return {
        "reference/commands.md": commands_page(commands),
        "reference/config.md": config_page(config_keys()),
        **{f"reference/{path}": page for path, page in api_pages().items()},
    }
