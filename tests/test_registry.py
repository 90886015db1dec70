"""Parts from outside: what may be registered, its hyperparameters, and the import of its module."""

import sys

import flax.linen as nn
import pytest

from uniface_jax.errors import UserError
from uniface_jax.registry import Hyperparameter, Range, Registry, above, import_parts, one_of


def registry(**named):
    made = Registry("loss", "loss", reserved=("name", "margin"), **named)
    made.add("uce", lambda margin=0.4: margin, {"margin": above(0)}, builtin=True)
    return made


def soft(temperature: float = 0.5, sharp: bool = False, kind: str = "a") -> tuple:
    return temperature, sharp, kind


SOFT = {"temperature": above(0), "kind": one_of("a", "b")}


def test_hyperparameters_are_those_of_the_signature():
    losses = registry()
    assert losses.decorator("soft", SOFT)(soft) is soft
    entry = losses.entry("soft")
    assert entry.defaults == {"temperature": 0.5, "sharp": False, "kind": "a"}
    assert entry.checked({"temperature": 2, "kind": None}, "loss.") == {"temperature": 2}
    assert list(losses) == ["uce", "soft"]
    assert [outside.name for outside in losses.from_outside()] == ["soft"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"temperature": 0.0}, r"loss.soft.temperature=0.0: must be > 0"),
        ({"temperature": "hot"}, r"loss.soft.temperature='hot': must be a float"),
        ({"temperature": True}, r"loss.soft.temperature=True: must be a float"),
        ({"sharp": 1}, r"loss.soft.sharp=1: must be a bool"),
        ({"kind": "c"}, r"loss.soft.kind=c: must be one of a, b"),
        ({"margin": 0.1}, r"loss.soft.margin=0.1: soft has only temperature, sharp, kind"),
    ],
)
def test_values_are_checked(given, message):
    losses = registry()
    losses.add("soft", soft, SOFT)
    with pytest.raises(UserError, match=message):
        losses.entry("soft").checked(given, "loss.soft.")


@pytest.mark.parametrize(
    ("name", "part", "ranges", "message"),
    [
        ("uce", soft, SOFT, r"loss 'uce': registered already, by .*test_registry"),
        ("margin", soft, SOFT, r"loss 'margin': no name for a part; expected .* none of margin, n"),
        ("My loss", soft, SOFT, r"loss 'My loss': no name for a part; expected lower-case"),
        ("soft", soft, {"kind": one_of("a")}, r"loss 'soft': hyperparameter temperature has no ra"),
        ("soft", soft, {**SOFT, "m": above(0)}, r"loss 'soft': a range for m, which is no hyperp"),
        ("soft", lambda m: m, {}, r"loss 'soft': hyperparameter m has no default that a config"),
        ("soft", lambda m=(1, 2): m, {}, r"loss 'soft': hyperparameter m has no default"),
        ("soft", lambda m=0: m, {"m": above(0)}, r"loss 'soft': m=0 is the default, but must be"),
        ("soft", 3, {}, r"loss 'soft': a int; expected a function or a class"),
    ],
)
def test_refused(name, part, ranges, message):
    losses = registry()
    with pytest.raises(UserError, match=message):
        losses.add(name, part, ranges)
    assert list(losses) == ["uce"]


def test_a_second_part_of_the_same_name_is_refused_unless_its_module_was_reloaded():
    losses = registry()
    losses.add("soft", soft, SOFT)
    losses.add("soft", soft, SOFT)
    with pytest.raises(
        UserError, match=r"loss 'soft': registered already, by tests.test_registry.s"
    ):
        losses.add("soft", lambda: 0)


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(UserError, match=r"^loss.name='focal': allowed are uce, and what a module"):
        registry().entry("focal", "loss.name='focal'")


def test_given_arguments_and_common_hyperparameters():
    off = Hyperparameter(0.0, Range("from 0 to 1", lambda value: 0 <= value <= 1))
    fogs = Registry("augmentation", "data.augment", given=("pixels",), common={"probability": off})
    fogs.add("fog", lambda pixels, density=0.5: pixels, {"density": above(0)})
    assert fogs.entry("fog").defaults == {"density": 0.5, "probability": 0.0}
    with pytest.raises(UserError, match=r"'mist': takes \(image\); expected pixels and hyperpar"):
        fogs.add("mist", lambda image: image)
    with pytest.raises(UserError, match="'mist': probability is a hyperparameter of every augment"):
        fogs.add("mist", lambda pixels, probability=0.5: pixels, {"probability": above(0)})


def test_a_flax_module_is_a_factory():
    class Plain(nn.Module):
        embedding_size: int
        width: int = 8

    networks = Registry("network", "model", given=("embedding_size",))
    networks.add("plain", Plain, {"width": above(0)})
    assert networks.entry("plain").defaults == {"width": 8}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, empty; modules that a test imports from it are forgotten after it."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_modules_are_found_in_the_current_folder_and_named_once(folder, capsys):
    package = folder / "outside_package"
    package.mkdir()
    (package / "parts.py").write_text("VALUE = 3\n")
    import_parts(["outside_package.parts"])
    import_parts(["outside_package.parts"])
    assert sys.modules["outside_package.parts"].VALUE == 3
    assert capsys.readouterr().err == (f"imported outside_package.parts ({package / 'parts.py'})\n")


def test_the_current_folder_hides_no_installed_module(folder):
    (folder / "colorsys.py").write_text("raise RuntimeError('hidden')\n")
    sys.modules.pop("colorsys", None)
    import_parts(["colorsys", "json"])
    assert sys.modules["colorsys"].hsv_to_rgb


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("outside_none", None, r"^--imports: no module 'outside_none' in .* or elsewhere"),
        ("outside_bad.part", "", r"^--imports: outside_bad.part cannot be imported: ModuleNotFou"),
        (
            "outside_bad",
            "x = 1\ny = z\n",
            r"cannot be imported: NameError: .*outside_bad.py, line 2",
        ),
        ("outside_bad", "x = (\n", r"^--imports: outside_bad cannot be imported: SyntaxError: "),
        (
            "outside_bad",
            "import outside_other\n",
            r"No module named 'outside_other' \(.*bad.py, li",
        ),
        (
            "outside_bad",
            "from uniface_jax.errors import UserError\nraise UserError('wrong')\n",
            r"^--imports: outside_bad: wrong",
        ),
        ("../outside_bad", "", r"^--imports: '../outside_bad' is no module's name"),
        (".outside_bad", "", r"^--imports: '.outside_bad' is no module's name"),
        (3, "", r"^--imports: 3 is no module's name"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_line(folder, name, content, message):
    if content is not None:
        (folder / "outside_bad.py").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        import_parts([name], "--imports")
    assert "\n" not in str(caught.value)


def test_nothing_is_imported_from_inside_the_workdir_that_names_it(folder, monkeypatch):
    workdir = folder / "run"
    (workdir / "space").mkdir(parents=True)
    (workdir / "outside_planted.py").write_text("raise SystemExit('ran')\n")
    (workdir / "space" / "planted.py").write_text("raise SystemExit('ran')\n")
    monkeypatch.chdir(workdir)  # where `python -m` looks first
    for name in ("outside_planted", "space.planted"):
        with pytest.raises(UserError, match=f"{name} would be imported from inside the workdir"):
            import_parts([name], workdir=folder / "run")
    monkeypatch.chdir(folder)
    (folder / "link").symlink_to(workdir)
    sys.path.append(str(folder / "link"))
    with pytest.raises(UserError, match="outside_planted would be imported from inside"):
        import_parts(["outside_planted"], workdir=workdir)
    (folder / "outside_own.py").write_text("VALUE = 4\n")
    import_parts(["outside_own"], workdir=workdir)
    assert sys.modules["outside_own"].VALUE == 4
