"""Hooks: told in order, in process 0, and unable to stop or delay a run."""

import threading

import pytest

from tests.helpers.registered import forgotten
from uniface_jax import Hook, register_hook, train_and_evaluate
from uniface_jax import config as configs
from uniface_jax.errors import UserError
from uniface_jax.registry import above
from uniface_jax.train import hooks


class Recorder(Hook):
    def __init__(self, run=None, stop_at: float = 1e9):
        self.told, self.stop_at = [], stop_at

    def on_step(self, step, values):
        self.told.append(("step", step, values))
        if step >= self.stop_at:
            raise RuntimeError(f"the server\n answers {step}")

    def on_evaluation(self, step, results):
        self.told.append(("evaluation", step, results))

    def on_end(self, done):
        self.told.append(("end", done))


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(hooks, "warn", lines.append)
    return lines


def test_a_hook_is_told_in_order_and_has_its_own_numbers(said):
    recorder, values = Recorder(), {"loss": 2.0}
    with hooks.Hooks({"mine": lambda: recorder}) as told:
        told.step(1, values)
        values["loss"] = 1.0
        told.log(1, values)  # which the base class lets pass
        told.evaluation(1, {"pairs/auc": 0.9})
    assert recorder.told == [
        ("step", 1, {"loss": 2.0}), ("evaluation", 1, {"pairs/auc": 0.9}), ("end", True),
    ]  # fmt: skip
    assert said == []


def test_a_stopped_run_says_so():
    recorder = Recorder()
    with pytest.raises(KeyboardInterrupt), hooks.Hooks({"mine": lambda: recorder}):
        raise KeyboardInterrupt
    assert recorder.told == [("end", False)]


def test_failures_are_said_once_and_the_calls_go_on(said):
    recorder, other = Recorder(stop_at=2), Recorder()
    with hooks.Hooks({"mine": lambda: recorder, "other": lambda: other}) as told:
        for step in range(1, 5):
            told.step(step, {})
    assert [call[1] for call in recorder.told] == [1, 2, 3, 4, True]
    assert recorder.told == other.told
    assert said == [
        "hook mine: on_step of step 2 failed (RuntimeError: the server answers 2); the run "
        "continues",
        "hook mine: 3 calls failed",
    ]


@pytest.mark.parametrize("error", [ValueError("no key"), SystemExit("no key")])
def test_a_hook_that_does_not_start_is_said(said, error):
    def make():
        raise error

    with hooks.Hooks({"mine": make}) as told:
        told.step(1, {})
    kind = type(error).__name__
    assert said == [f"hook mine: did not start ({kind}: no key); the run continues without it"]


def test_a_hook_that_hangs_is_left_behind(said, monkeypatch):
    monkeypatch.setattr(hooks, "MAX_WAITING", 3)
    ended = threading.Event()

    class Hanging(Hook):
        def on_step(self, step, values):
            ended.wait()

    with hooks.Hooks({"mine": Hanging}, end_seconds=0.1) as told:
        for step in range(1, 9):
            told.step(step, {})
    ended.set()
    first, left, *rest = said
    assert first.startswith("hook mine: 3 calls wait")
    assert left == "hook mine: not done 0.1 s after the run's end; left behind"
    assert rest in ([f"hook mine: {count} calls were left out"] for count in (4, 5))


def test_an_id_is_the_same_when_resumed_and_another_when_begun(tmp_path, said):
    def made(first):
        return hooks._run_id(tmp_path, first)

    begun = made(0)
    assert made(5) == begun
    assert made(0) != begun
    assert said == []
    (tmp_path / hooks.ID_FILE).write_text("../../elsewhere\n")
    assert len(made(5)) == 16
    assert said == [f"{tmp_path / 'run_id'}: holds no run's id; the trackers begin a new run"]


@pytest.fixture
def recorders():
    """Registers the hook `recorder`, and lists what was made of it."""
    made = []
    with forgotten():

        @register_hook("recorder", stop_at=above(0))
        def recorder(run, stop_at: float = 1e9):
            made.append((run, Recorder(run, stop_at)))
            return made[-1][1]

        yield made


def test_other_processes_have_no_hooks(tmp_path, recorders):
    config = configs.base()
    config.hooks.names = ("recorder",)
    with hooks.create(config, tmp_path, 0, False) as told:
        told.step(1, {})
    assert recorders == []
    assert not (tmp_path / hooks.ID_FILE).exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("hooks.names", ("nothing",), "hooks.names='nothing': allowed are wandb, mlflow"),
        ("hooks.recorder.stop_at", -1.0, "config.hooks.recorder.stop_at=-1.0: must be > 0"),
        ("hooks.wandb.mode", "on", "config.hooks.wandb.mode=on: must be one of offline, online"),
        ("hooks.wandb.project", "a/b", "hooks.wandb.project=a/b: must be a name without /"),
        ("hooks.mlflow.experiment", " ", "hooks.mlflow.experiment= : must be not empty"),
        ("hooks.mlflow.uri", "host", "hooks.mlflow.uri=host: must be empty, databricks or SCHEME"),
    ],
)
def test_mistakes_in_the_config_are_said_first(recorders, tmp_path, key, value, message):
    config = configs.base()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=message):
        train_and_evaluate(config, tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_a_run_tells_its_hook_and_survives_it(recorders, tmp_path, monkeypatch):
    """Its on_step fails from step 3 on; the run is resumed, and has the same id."""
    said = []
    monkeypatch.setattr(hooks, "warn", said.append)
    config = configs.base()
    config.update_from_flattened_dict(
        {
            "data.train": "synthetic:5:40", "model.stage_sizes": (1, 1, 1, 1), "model.width": 4,
            "model.embedding_size": 8, "batch_size": 16, "micro_batches": 1, "steps": 4,
            "checkpoint.every_steps": 2, "log.every_steps": 2, "hooks.names": ("recorder",),
            "hooks.recorder.stop_at": 3.0,
        }
    )  # fmt: skip
    values = train_and_evaluate(config, tmp_path / "run")
    config.steps = 5
    train_and_evaluate(config, tmp_path / "run", extend=True)
    (run, recorder), (again, other) = recorders
    assert (run.first_step, again.first_step, again.id) == (0, 4, run.id)
    assert run.config["optim.lr"] == config.optim.lr
    assert [call[1] for call in recorder.told] == [1, 2, 3, 4, True]
    assert [call[1] for call in other.told] == [5, True]
    assert recorder.told[3][2]["loss"] == values["loss"]
    assert sum("step 3 failed" in line for line in said) == 1
