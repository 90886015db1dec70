"""The page of plans: rows of compiled programs, and the part that is not printed anew."""

import pytest
import table_plan


def plan(predicted, total):
    made = {"collectives": [{"bytes": 2e6}], "kernels": 1234, "bytes": 5e9, "compile_seconds": 9.6}
    account = {"predicted": predicted, "total": total}
    return {"compiled": account, "on_target": made, "commit": "abc1234"}


PROGRAMS = {"h100 8 demo": plan(1.5e9, 1.4e9), "v5e:4x4 16 demo": plan(0.8e9, 1.0e9)}


def test_rows_and_the_verdict_follow_from_the_compilers_account():
    rows = [table_plan.compiled_row(*item) for item in PROGRAMS.items()]
    assert rows[0] == (
        "demo", "8 of h100", "1.50", "1.40", "1.07", "1,234", "5", "2", "10", "abc1234",
    )  # fmt: skip
    said = table_plan.verdict(PROGRAMS)
    assert said.endswith("for 1 of 2; not for `demo` on v5e:4x4 (0.80)")
    assert table_plan.verdict({"h100 8 demo": PROGRAMS["h100 8 demo"]}).endswith("for 1 of 1")


def test_the_other_part_of_the_page_is_kept(tmp_path):
    page = tmp_path / "plan.md"
    recipes = f"{table_plan.RECIPES_PART}\n\nas it was\n"
    page.write_text(table_plan.HEADING + table_plan.compiled_part(PROGRAMS) + recipes)
    assert table_plan.kept_part(page, "recipes") == recipes
    assert table_plan.kept_part(page, "compiled") == table_plan.compiled_part(PROGRAMS)
    with pytest.raises(SystemExit, match="is not there"):
        table_plan.kept_part(tmp_path / "none.md", "recipes")
