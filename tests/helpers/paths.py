"""Where the tests find the repository and their data files."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
GOLDEN2 = ROOT / "tests" / "golden2"
FIXTURES = ROOT / "tests" / "fixtures"
FIXTURES2 = ROOT / "tests" / "fixtures2"
