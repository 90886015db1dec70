"""Puts the generated pages into the site: mkdocs calls these functions as it builds (mkdocs.yml).

The reference is made by reference_pages.py. The pages on contributing, changes and recipes are
files that stand elsewhere in the repository, with links that start at its root.
"""

import re
from pathlib import Path

import reference_pages
from markdown_text import stacked
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
ELSEWHERE = {  # page -> where its file is in the repository
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "security.md": "SECURITY.md",
    "reference/recipes.md": "configs/README.md",
}
REFERENCE = "Reference"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Append the pages of the Python interface to the navigation's reference, and the how-tos."""
    pages = [{_short(path): f"reference/{path}"} for path in reference_pages.api_pages()]
    (reference,) = [entry for entry in config.nav or [] if REFERENCE in entry]
    reference[REFERENCE].append({"Python": pages})
    how_to = sorted(Path(config.docs_dir).glob("how-to/*.md"))
    if how_to and config.nav is not None:
        config.nav.insert(2, {"How-to": [f"how-to/{page.name}" for page in how_to]})
    return config


def _short(path: str) -> str:
    """Return a page's name in the navigation: python/uniface_jax.data.input.md -> data.input."""
    name = path.removeprefix("python/").removesuffix(".md")
    return name.removeprefix("uniface_jax.")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every generated page to the files of the site."""
    generated = dict(reference_pages.pages())
    for page, name in ELSEWHERE.items():
        text = (ROOT / name).read_text().replace("](docs/", "](")
        for other, source in ELSEWHERE.items():
            text = text.replace(f"]({source})", f"]({other})")
        generated[page] = stacked(Path(page).stem, text)
    for path, content in generated.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Mark short flags, which site.css keeps on one line: browsers break them behind a hyphen."""
    return re.sub(r"<code>(--[^<\s]{1,30})</code>", r'<code class="flag">\1</code>', html)
