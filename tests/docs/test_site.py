"""The site: its generated pages say all there is, and it builds without a warning or a web font."""

import ast
import os
import re
import subprocess
import sys

import draw_layers
import pytest
import reference_pages
from markdown_text import escape, table

import uniface_jax
from tests.helpers.paths import ROOT
from uniface_jax import config as configs
from uniface_jax import losses
from uniface_jax.config.keys import parts_from_outside
from uniface_jax.errors import UserError


def test_picture_of_the_layers_is_the_contract():
    fresh = draw_layers.picture(ROOT / "pyproject.toml")
    assert draw_layers.PICTURE.read_text() == fresh, "python scripts/draw_layers.py"
    named = re.findall(r">(\w+)</text>", draw_layers.PICTURE.read_text())
    rooms = {p.stem for p in (ROOT / "uniface_jax").iterdir() if not p.name.startswith("__")}
    rooms -= {"py"}
    assert rooms - set(named) <= {"py.typed", "configs"}
    for layers in ("uniface_jax", "uniface_jax.data"):
        for layer in draw_layers.layers_of(ROOT / "pyproject.toml", layers):
            assert set(layer) <= set(named)


def test_layers_of_other_containers_are_an_error():
    with pytest.raises(KeyError, match="no contract of layers for nowhere"):
        draw_layers.layers_of(ROOT / "pyproject.toml", "nowhere")


def test_commands_page_has_every_command_and_flag():
    commands = [reference_pages.load_command(m) for m in reference_pages.command_modules()]
    assert {"train", "evaluate", "export", "convert", "align"} <= {c.name for c in commands}
    page = reference_pages.commands_page(commands)
    for command in commands:
        assert f"## {command.name}\n" in page
        assert command.description
        for flag in command.flags:
            assert f"| `--{flag.name}` |" in page
            assert flag.help
    train = next(c for c in commands if c.name == "train")
    assert {"config", "workdir"} <= {flag.name for flag in train.flags}
    assert "| `--check` | one of `structure`, `decode` | `structure` | of every image" in page


def test_config_page_has_every_key():
    keys = reference_pages.config_keys()
    assert {key.path for key in keys} == set(configs.flatten(configs.base()))
    page = reference_pages.config_page(keys)
    for key in keys:
        assert f"| `{key.path}` |" in page
    # Other tests of this process may have registered parts, whose keys describe themselves.
    outside = tuple(f"{section}.{entry.name}." for section, entry in parts_from_outside())
    assert not [key.path for key in keys if not (key.comment or key.path.startswith(outside))]
    assert "| `optim.lr` | `0.1` | \\> 0 |" in page
    assert "| `optim.milestones` | `(16, 24)` |" in page
    for name in losses.LOSSES:
        assert f"| `{name}` |" in page


def test_every_range_is_on_the_config_page():
    """Each number and each choice that the config refuses when it is absurd has its range."""
    for key in reference_pages.config_keys():
        config = configs.base()
        absurd = {int: -7, float: -7.5, str: "absurd"}.get(type(key.default))
        if absurd is None or key.path == "data.train":
            continue
        config.update_from_flattened_dict({key.path: absurd})
        try:
            configs.check_values(config)
        except UserError:
            assert key.allowed, key.path


def test_comments_of_a_config():
    source = (
        "config.seed = 0  # of everything\n# Above,\n# in two lines.\nconfig.a.b = f(1)\n"
        "config.none = 2\nother.key = 3  # of another\n"
    )
    comments = reference_pages.comments_of(source)
    assert comments == {"seed": "of everything", "a.b": "Above, in two lines."}


def test_every_public_module_is_on_a_page_of_the_python_interface():
    pages = "".join(reference_pages.api_pages().values())
    for file in (ROOT / "uniface_jax").rglob("*.py"):
        public = [
            node.name
            for node in ast.parse(file.read_text()).body
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        ]
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        if public and '__name__ == "__main__"' not in file.read_text():
            assert f"::: {name.removesuffix('.__init__')}\n" in pages


def test_public_names_are_on_the_first_page_of_the_python_interface():
    page = reference_pages.api_pages()["python/uniface_jax.md"]
    names = re.search(r"members: \[(.*)\]", page)[1].split(", ")
    assert {"Embedder", "register_loss", "train_and_evaluate"} <= set(names)
    assert {*names, "losses", "models", "__version__"} == set(uniface_jax.__all__)


def test_docstrings_are_escaped_but_for_code():
    assert escape("features [B, D] of `x[0]` in lresnet* <b>") == (
        "features \\[B, D\\] of `x[0]` in lresnet\\* \\<b\\>"
    )
    code = "Use it:\n\n    a[0] * b\n\n>>> f(x)[0]\n[1]\n\nThen [this]."
    assert escape(code) == code.replace("[this]", "\\[this\\]")
    section = "Args:\n    *arrays: of [B]\n    x (int): [D]\n"
    assert escape(section) == "Args:\n    *arrays: of \\[B\\]\n    x (int): \\[D\\]"
    fields = "A thing.\n\nsize: how [large]\n    it is.\nNote: this.\n"
    assert escape(fields, {"size"}) == (
        "A thing.\n\n\n- `size`: how \\[large\\]\n    it is.\nNote: this."
    )


def test_table_keeps_bars_in_their_cells():
    assert table("keys", ("a", "b"), [("x|y", "two\nlines")]) == (
        '<div class="stacked keys" markdown="1">\n\n'
        "| a | b |\n| --- | --- |\n| x\\|y | two lines |\n\n</div>\n"
    )


@pytest.mark.slow
def test_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    code = "import sys; from mkdocs.__main__ import cli; cli(standalone_mode=False); " + (
        "print([m for m in ('tensorflow', 'torch', 'orbax') if m in sys.modules])"
    )
    arguments = ["build", "--strict", "--quiet", f"--site-dir={tmp_path}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() == "[]"  # nothing heavy was imported
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        loaded = re.findall(r"<(?:script|link|img)\b[^>]*(?:src|href)=\"([^\"]+)", page.read_text())
        assert not [url for url in loaded if url.startswith(("http:", "https:", "//"))], page
    assert "loss_and_gradients" in (tmp_path / "reference/python/uniface_jax.head.html").read_text()
    assert (tmp_path / "search" / "search_index.js").is_file()
