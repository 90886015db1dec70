"""The table at the end of the demo: rates at fixed FARs first, accuracy and its base rate last."""

import json

import demo_summary


def test_the_accuracy_stands_below_the_rates_and_beside_its_base_rate(
    tmp_path, capsys, monkeypatch
):
    points = [{"far": far, "strict": {"tar": tar}} for far, tar in ((0.1, 0.99), (0.01, 0.86))]
    orl = {"auc": 0.9936, "pairs": 4950, "same": 450, "different": 4500, "tar_at_far": points}
    orl["accuracy"] = {"mean": 0.9804, "std": 0.0078}
    (tmp_path / "evaluation").mkdir()
    files = {
        "metrics.jsonl": {"loss": 1.0, "threshold": 0.3616, "elapsed_seconds": 84.0},
        "evaluation/metrics.json": {"protocols": {"verification": {"sets": {"orl": orl}}}},
        "export.json": {"differences": {"a": 3.7e-7}},
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    monkeypatch.setattr(demo_summary, "locate", lambda workdir: (workdir, 400))
    demo_summary.main(tmp_path)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    rows = lines[1 : lines.index("files:") - 1]
    assert rows == [
        "steps trained 400 in 1m24s",
        "unified threshold b/s 0.3616",
        "ROC-AUC, 10 unseen people 0.9936",
        "TAR at FAR 0.1 0.9900",
        "TAR at FAR 0.01 0.8600",
        "10-fold accuracy 0.9804 ± 0.0078",
        "calling all different 0.9091",
        "ONNX against JAX 3.7e-07 relative",
    ]
