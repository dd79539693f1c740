"""What MLflow imports when a store is opened and a model is logged: a tenth of a second of every job."""

MLFLOW = (
    "mlflow.keras", "mlflow.models", "mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_workspace_store", "mlflow.tracing.processor.base_mlflow",
)  # fmt: skip
