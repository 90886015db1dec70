"""Benchmarks' variants in processes of their own, of which one may hang."""

import json

import turns

# A variant that answers each turn at once, but for the one that hangs.
SCRIPT = """import sys, time
for job in sys.stdin:
    if "--variant=hangs" in sys.argv:
        time.sleep(60)
    print({answer!r}, flush=True)
"""


def test_a_variant_that_takes_too_long_is_ended_and_the_others_go_on(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(answer=json.dumps({"seconds": 0.5})))
    late, fast = (
        turns.Worker(str(script), name, most_seconds=most)
        for name, most in (("hangs", 0.5), ("fast", 30.0))
    )
    turns.interleave([late, fast], 2)
    for worker in (late, fast):
        worker.end()
    assert (late.failed, late.values()) == ("took more than 0.5 s", [])
    assert (fast.failed, fast.values()) == (None, [0.5, 0.5])


def test_a_variant_that_ends_is_told(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("input()")
    worker = turns.Worker(str(script), "ends")
    turns.interleave([worker], 2)
    worker.end()
    assert worker.failed == "its process ended"
