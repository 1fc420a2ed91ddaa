"""The requests that a replay makes to MLflow. Each can be repeated: what the store has already is not added again."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from pipelines.tracking.config import Backend
from pipelines.tracking.metrics_file import LoggedSteps, Point
from stages.base.artifact import Artifact, is_remote

if TYPE_CHECKING:
    from mlflow.entities import Run

log = logging.getLogger(__name__)

#: Tag that names a run across stores, restarts and replays: the invocation, or the key beside the artifact.
KEY_TAG = "pairmill.key"

#: MLflow's limit for a dataset's digest (mlflow.utils.validation.MAX_DATASET_DIGEST_SIZE).
_DIGEST = 36


class StoreUnavailable(Exception):
    """The store cannot be reached or is failing: try again later. One line."""


@contextlib.contextmanager
def sort_errors(action: str, refused: Callable[[str], None]) -> Iterator[None]:
    """Raise Unavailable for a store that is down; report a request that it will never accept, and go on."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException

    try:
        yield
    except MlflowException as error:
        line = str(error).strip().splitlines()[0][:200]
        code = error.get_http_status_code()
        if code >= 500 or code in (401, 403, 408, 429):
            raise StoreUnavailable(line) from error
        log.exception("%s", action)
        refused(f"MLflow refused {action}: {line}")
    except RequestException as error:
        raise StoreUnavailable(type(error).__name__) from error
    except FileNotFoundError as error:
        refused(f"{action} could not be read for MLflow: {error}")


class TrackingClient:
    """An open store. Methods raise MLflow's own errors; see `sort_errors`."""

    def __init__(self, backend: Backend) -> None:
        """Import MLflow and open the store (seconds). Raises Unavailable."""
        from mlflow.tracking import MlflowClient

        def unavailable(line: str) -> None:
            raise StoreUnavailable(line)

        if backend.database:
            backend.database.parent.mkdir(parents=True, exist_ok=True)
        self.backend = backend
        with sort_errors("the connection", unavailable):
            self._mlflow = MlflowClient(tracking_uri=backend.uri)
            self._mlflow.get_experiment_by_name("pairmill")

    def experiment(self, name: str) -> str:
        """The id of an experiment, which is created or restored if need be."""
        from mlflow.exceptions import MlflowException

        experiment = self._mlflow.get_experiment_by_name(name)
        if experiment is None:
            try:
                return str(self._mlflow.create_experiment(name, artifact_location=self.backend.artifact_root))
            except MlflowException:
                # Another delivery created it in between.
                experiment = self._mlflow.get_experiment_by_name(name)
                if experiment is None:
                    raise
        if experiment.lifecycle_stage == "deleted":
            self._mlflow.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)

    def find_run(self, experiment: str, key: str) -> Run | None:
        """The run with a key."""
        runs = self._mlflow.search_runs([experiment], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
        return runs[0] if runs else None

    def start_run(
        self, experiment: str, key: str, name: str, time: int, params: Mapping[str, str], tags: Mapping[str, str]
    ) -> Run:
        """The run with a key: created now, or continued with these tags and the params that it lacks."""
        run = self.find_run(experiment, key)
        if run is None:
            run = self._mlflow.create_run(experiment, time, {KEY_TAG: key, **tags}, name)
        else:
            self.log(run, tags=tags)
            if run.info.status != "RUNNING":
                self._mlflow.update_run(run.info.run_id, status="RUNNING")
        # MLflow's params are written once, but a stage may be resumed with others (more workers) than it began with.
        self.log(run, params={name: value for name, value in params.items() if name not in run.data.params})
        return run

    def end_run(self, run: Run, status: str, time: int) -> None:
        """Set a run's final status."""
        self._mlflow.set_terminated(run.info.run_id, status, time)

    def logged_steps(self, run: Run) -> LoggedSteps:
        """The highest step of each metric of a run in the store."""
        logged = {key: self._mlflow.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
        return LoggedSteps({key: max(metric.step for metric in metrics) for key, metrics in logged.items()})

    def log(
        self,
        run: Run,
        points: Iterable[Point] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log everything in as few requests as MLflow's limits allow (`log_batch` splits them).

        Synchronously even if MLFLOW_ENABLE_ASYNC_LOGGING is set: MLflow's queue drops a request that fails, and the
        spool would then be removed as delivered.
        """
        from mlflow.entities import Metric, Param, RunTag

        self._mlflow.log_batch(
            run.info.run_id,
            [Metric(*point) for point in points],
            [Param(*item) for item in (params or {}).items()],
            [RunTag(*item) for item in (tags or {}).items()],
            synchronous=True,
        )

    def log_file(self, run: Run, artifact: Artifact, name: str) -> None:
        """Copy a file of an artifact into a run."""
        folder = str(PurePosixPath(name).parent)
        self._mlflow.log_artifact(run.info.run_id, str(artifact.path(name)), None if folder == "." else folder)

    def log_inputs(self, run: Run, inputs: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Log the artifacts that a stage reads (role -> `tracker._dataset`) as datasets; MLflow keeps each once."""
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

        datasets = []
        for role, items in inputs.items():
            for item in items:
                dataset = Dataset(
                    name=item["name"],
                    digest=item["fingerprint"][:_DIGEST],
                    source_type="local",
                    source=json.dumps({"uri": item["url"]}),
                    profile=json.dumps(item["counts"]),
                )
                datasets.append(DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, role)]))
        if datasets:
            self._mlflow.log_inputs(run.info.run_id, datasets)

    def register_model(self, run: Run, name: str, artifact: Artifact) -> None:
        """Create a version of a registered model that points at the artifact; no weights are copied."""
        from mlflow.exceptions import MlflowException

        if any(version.name == name for version in self._model_versions(run)):
            return
        source = f"{artifact.url}/model"
        tags = {"pairmill.model": source, "pairmill.fingerprint": artifact.fingerprint}
        if self.backend.is_server and not is_remote(artifact.url):
            # A server refuses a path of the client's machine as a source, so the source is a file with that path.
            self._mlflow.log_dict(run.info.run_id, tags, "model/pairmill.json")
            source = f"{run.info.artifact_uri}/model"
        try:
            self._mlflow.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        self._mlflow.create_model_version(name, source, run.info.run_id, tags=tags, await_creation_for=0)

    def tag_models(self, run: Run, tags: Mapping[str, str]) -> None:
        """Set tags on every registered model version of a run."""
        for version in self._model_versions(run):
            for tag, value in tags.items():
                self._mlflow.set_model_version_tag(version.name, version.version, tag, value)

    def _model_versions(self, run: Run) -> Sequence[Any]:
        versions: Sequence[Any] = self._mlflow.search_model_versions(f"run_id = '{run.info.run_id}'")
        return versions
