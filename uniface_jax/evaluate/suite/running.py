"""Suite: every set that is found in a folder, one after another, and the table of all."""

from pathlib import Path

from uniface_jax import cli
from uniface_jax.errors import UserError, refused
from uniface_jax.evaluate.features import FeatureSource
from uniface_jax.evaluate.protocols import PROTOCOLS
from uniface_jax.evaluate.protocols.base import Options, Results
from uniface_jax.evaluate.report import report, results
from uniface_jax.evaluate.suite.finding import FoundSet
from uniface_jax.evaluate.suite.table import LATEX, MARKDOWN, latex, markdown, suite_table
from uniface_jax.files.atomic import write_bytes


def run_suite(
    source: FeatureSource,
    path: str,
    output: Path,
    sets: list[FoundSet],
    options: Options,
) -> dict[str, str]:
    """Evaluate all sets into `output`, and return the line of each that failed, by its name.

    What is done stands in metrics.json after every set, so that nothing is lost where one of hours
    fails; features that are kept are taken again. The report comes last.
    path: the model as the user named it.
    """
    found: dict[str, Results] = {}
    failures: dict[str, str] = {}
    for one in sets:
        cli.say(f"{one.name}: {one.place}")
        try:
            of_set = PROTOCOLS[one.protocol].run(one.parts, source, options)
        except (UserError, OSError) as e:
            line = " ".join(str(e if isinstance(e, UserError) else refused(e)).split())
            failures[one.name] = line
            cli.say(f"{one.name}: failed: {line}")
            continue
        found.setdefault(one.protocol, {}).update(of_set)
        results.write(output, results.collect(source, path, found))
        only = results.collect(source, path, {one.protocol: of_set})
        cli.say(*report.tables(only).split("\n"))
    run = results.collect(source, path, found)
    if found:
        report.write(output, [run])
    table = suite_table(run, failures)
    for name, text in ((MARKDOWN, markdown(table)), (LATEX, latex(table))):
        write_bytes(output / name, text.encode("utf-8", "backslashreplace"))
    cli.say("", *markdown(table).rstrip().split("\n"), "")
    return failures
