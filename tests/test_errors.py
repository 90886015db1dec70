from importlib import metadata
from pathlib import Path

import pytest

import uniface_jax
from uniface_jax.errors import UserError, extra, install_command


def test_a_missing_extra_is_one_line_with_its_pip_command():
    with pytest.raises(UserError) as caught, extra("export"):
        import no_such_module.of_anybody  # noqa: F401
    assert str(caught.value) == f"no_such_module is not installed: {install_command('export')}"


def test_a_missing_module_of_our_own_is_no_missing_extra():
    with pytest.raises(ModuleNotFoundError, match=r"uniface_jax\.nothing"), extra("export"):
        import uniface_jax.nothing  # noqa: F401


def test_the_command_names_the_checkout_where_nothing_is_installed(monkeypatch):
    assert install_command("demo") == "pip install 'uniface_jax[demo]'"

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    checkout = Path(uniface_jax.__file__).parent.parent
    assert install_command("demo") == f"pip install '{checkout}[demo]'"
