"""Questions to MLflow about logged models: which restored model is best, and which result a model is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sftlab.errors import UserError
from sftlab.tracking.connection import ARTIFACT, Connection, refusals
from sftlab.tracking.settings import TrackingSettings


@dataclass(frozen=True)
class FoundModel:
    """A logged model: `uri` is `models:/m-...`, `artifact` the store's id, metrics as logged (shares, nats)."""

    uri: str
    name: str
    artifact: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]


def best_restored_model(
    settings: TrackingSettings,
    store: Path,
    at_least_in_domain: float,
    sweep: str | None = None,
    split: Literal["dev", "test"] = "dev",
) -> FoundModel | None:
    """The best restored model out of domain whose in-domain accuracy is at least this; None without one.

    Args:
        at_least_in_domain: share in [0, 1], of the mean over the buckets.
        sweep: name of the sweep to look in; all sweeps of the experiment if unset.
        split: what both accuracies are measured on. Who chooses by test has no honest test figure left, so it
            is dev if unset; the test figures are among the model's metrics.

    Raises UserError where MLflow cannot be reached, and for a share or a name that is none.
    """
    if not 0 <= at_least_in_domain <= 1:
        raise UserError(
            place="at_least_in_domain",
            value=at_least_in_domain,
            expected="a share from 0 to 1, such as 0.4 for 40 %",
        )
    if sweep is not None and not re.fullmatch(r"[\w.-]+", sweep):
        raise UserError(
            f"{sweep!r} is no name of a sweep",
            place="sweep",
            value=sweep,
            expected="letters, digits, dots, dashes or underscores",
        )
    conditions = ["params.kind = 'restored'", f"metrics.`accuracy/{split}` >= {at_least_in_domain!r}"]
    conditions += [f"params.sweep = '{sweep}'"] if sweep is not None else []
    with refusals(settings, store):
        at = Connection.connect(settings, store)
        found = at.client.search_logged_models(
            [at.experiment_id],
            filter_string=" AND ".join(conditions),
            order_by=[{"field_name": f"metrics.accuracy/{split}_ood", "ascending": False}],
            max_results=1,
        )
    return found_model(found[0]) if found else None


def artifact_of(address: str, settings: TrackingSettings, store: Path) -> str:
    """The store's id of a model in MLflow: `m-...`, `models:/m-...`, `models:/NAME@ALIAS` or `models:/NAME/3`.

    Raises UserError where MLflow does not know it or it was logged by something else.
    """
    from mlflow.exceptions import MlflowException

    with refusals(settings, store):
        client = Connection.connect(settings, store).client
        try:
            tags = tags_of(client, address.removeprefix("models:/"))
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            raise UserError(
                f"MLflow has no such model ({error.message})",
                place=address,
                advice="take the id from its page, or the digits of its result in the store.",
            ) from error
    if ARTIFACT not in tags:
        raise UserError(
            "was not logged by sftlab", place=address, advice="its tags name no result of a store."
        )
    return str(tags[ARTIFACT])


def tags_of(client: Any, name: str) -> Mapping[str, str]:
    """Tags of a registered version (NAME@ALIAS, NAME/3) or of a logged model (m-...)."""
    if "@" in name:
        version = client.get_model_version_by_alias(*name.split("@", 1))
    elif "/" in name:
        version = client.get_model_version(*name.split("/", 1))
    else:
        version = client.get_logged_model(name)
    return dict(version.tags)


def found_model(model: Any) -> FoundModel:
    metrics = {metric.key: metric.value for metric in model.metrics or ()}
    return FoundModel(
        f"models:/{model.model_id}", model.name, model.tags.get(ARTIFACT, ""), dict(model.params), metrics
    )
