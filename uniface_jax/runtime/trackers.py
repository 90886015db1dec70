"""Trackers of experiments: Weights & Biases and MLflow, which a run tells of its numbers.

Both write into the workdir unless the config names a server, and neither reports on itself. Their
libraries are extras, imported on first use.
"""

import importlib
import logging
import math
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uniface_jax.errors import extra

MLFLOW_FILE = "mlflow.db"  # in the workdir
# Each library reports on its own use, offline too, until a variable says otherwise.
_SILENT = {
    "wandb": {"WANDB_ERROR_REPORTING": "false"},
    "mlflow": {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"},
}
_RUN_TAG = "uniface_jax.run"
_BATCH = 1000  # metrics that MLflow takes in one call
_PARAMETERS = 100  # parameters
_TEXT = 500  # characters of a parameter
_FOREIGN = re.compile(r"[^\w./ -]")


def loaded(name: str) -> Any:
    """Return the library of the tracker `name`, told to report nothing about itself.

    Variables of the environment that are set stay as they are. Raises UserError that names the
    extra where it is not installed.
    """
    for variable, value in _SILENT[name].items():
        os.environ.setdefault(variable, value)
    with extra(name):
        return importlib.import_module(name)


class WandbTracker:
    """A run of Weights & Biases in workdir/wandb; a resumed run has the same id there.

    project: of W&B. mode: "offline" writes files, which `wandb sync` uploads; "online" does what
    W&B's own settings and variables say.
    """

    def __init__(self, run: Any, project: str, mode: str) -> None:
        wandb = loaded("wandb")
        self._run = wandb.init(
            project=project,
            id=run.id,
            name=run.workdir.resolve().name,
            resume="allow" if mode == "online" else None,  # offline, the id alone says it
            dir=str(run.workdir),
            mode="offline" if mode == "offline" else None,
            config=dict(run.config),
            allow_val_change=True,
            # The console is the run's own; W&B would put itself between.
            settings=wandb.Settings(console="off", silent=True),
        )
        # By an axis of its own: W&B drops what comes at a step that it has passed, after a resume.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def on_step(self, step: int, values: Mapping[str, float]) -> None:
        """Leave single steps out: they would be many."""

    def on_log(self, step: int, values: Mapping[str, float]) -> None:
        """Log the numbers of a step."""
        self._run.log({"step": step, **values})

    def on_evaluation(self, step: int, results: Mapping[str, float]) -> None:
        """Log an evaluation's results, behind eval/."""
        self.on_log(step, {f"eval/{key}": value for key, value in results.items()})

    def on_end(self, done: bool) -> None:
        """Finish the run; one that stopped is marked as failed, until it is resumed."""
        self._run.finish(exit_code=0 if done else 1)


class MlflowTracker:
    """A run of MLflow, in workdir/mlflow.db or on the server that `uri` names.

    A resumed run is found by a tag that holds the run's id.
    """

    def __init__(self, run: Any, experiment: str, uri: str) -> None:
        mlflow = loaded("mlflow")
        self._metric = mlflow.entities.Metric
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # no word about its tables
        logging.getLogger("alembic").setLevel(logging.WARNING)
        folder = run.workdir.resolve()
        store = uri or f"sqlite:///{folder / MLFLOW_FILE}"
        self._client = mlflow.MlflowClient(tracking_uri=store)
        group = self._experiment(experiment, None if uri else folder / "mlflow")
        found = self._client.search_runs([group], f"tags.`{_RUN_TAG}` = '{run.id}'")
        if found:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        made = self._client.create_run(group, run_name=folder.name, tags={_RUN_TAG: run.id})
        self._id = made.info.run_id
        given = [
            mlflow.entities.Param(key, str(value)[:_TEXT]) for key, value in run.config.items()
        ]
        for start in range(0, len(given), _PARAMETERS):
            self._client.log_batch(self._id, params=given[start : start + _PARAMETERS])

    def _experiment(self, name: str, artifacts: Path | None) -> str:
        """Return the id of the experiment `name`, which is made where it is not there."""
        known = self._client.get_experiment_by_name(name)
        if known is not None:
            return str(known.experiment_id)
        location = artifacts.as_uri() if artifacts else None
        return str(self._client.create_experiment(name, artifact_location=location))

    def on_step(self, step: int, values: Mapping[str, float]) -> None:
        """Leave single steps out: they would be many."""

    def on_log(self, step: int, values: Mapping[str, float]) -> None:
        """Log the numbers of a step that are finite, under names that MLflow allows."""
        now = int(1000 * time.time())
        given = [
            self._metric(_FOREIGN.sub("_", key), value, now, step)
            for key, value in values.items()
            if math.isfinite(value)
        ]
        for start in range(0, len(given), _BATCH):
            self._client.log_batch(self._id, metrics=given[start : start + _BATCH])

    def on_evaluation(self, step: int, results: Mapping[str, float]) -> None:
        """Log an evaluation's results, behind eval/."""
        self.on_log(step, {f"eval/{key}": value for key, value in results.items()})

    def on_end(self, done: bool) -> None:
        """Mark the run as finished, or as killed until it is resumed."""
        self._client.set_terminated(self._id, "FINISHED" if done else "KILLED")
