"""The trained model in MLflow, ready to be served: raw pixels in, probabilities out."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

from experiments.results.saved_model import open_model

SERVING_PACKAGES = ("tensorflow", "keras", "numpy")


def log_model(client: Any, run: Any, path: Path) -> None:
    """Adds the model in `path` to an MLflow run, with signature, example and requirements.

    Args:
        client: an `MlflowClient`.
        run: an `mlflow.entities.Run` of that client's store.
        path: the `model.keras` of the run.
    """
    import numpy as np
    from mlflow.models import Model

    model = open_model(path)
    example = np.zeros((1, *model.input_shape[1:]), np.uint8)
    # Made here, because MLflow would put it into the experiment that is active, which is not the run's.
    logged = client.create_logged_model(
        run.info.experiment_id, name="model", source_run_id=run.info.run_id, params=dict(run.data.params)
    )
    Model.log(
        artifact_path=None,
        model_id=logged.model_id,
        flavor=_KerasFlavor,
        run_id=run.info.run_id,
        model=model,
        signature=_signature(model),
        input_example=example,
        validate_serving_input=False,  # it would load the model once more, in each run; a test serves one
        pip_requirements=[f"{name}=={metadata.version(name)}" for name in SERVING_PACKAGES],
    )


class _KerasFlavor:
    """`mlflow.keras`, which cannot save an input example: it writes it into a folder that it has not made yet."""

    @staticmethod
    def save_model(*, path: str, **values: Any) -> None:
        import mlflow.keras

        del values["validate_serving_input"]  # which is for `Model.log` alone
        Path(path).mkdir(parents=True, exist_ok=True)
        mlflow.keras.save_model(path=path, **values)


def _signature(model: Any) -> Any:
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    # Without a name, which MLflow would hand on to Keras as the name of an input.
    images = TensorSpec(np.dtype(np.uint8), (-1, *model.input_shape[1:]))
    probabilities = TensorSpec(np.dtype(np.float32), (-1, model.output_shape[-1]))
    return ModelSignature(Schema([images]), Schema([probabilities]))
