"""`python -m experiments.ui [--port N]`: the MLflow UI on this project's store."""

from __future__ import annotations

import argparse
import os
import sys

from experiments.entrance import exit_with
from experiments.errors import InputError

PORT = 5000  # MLflow's own


def main() -> None:
    """The entrance."""
    exit_with(lambda: serve(_arguments().port))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m experiments.ui", description=__doc__)
    parser.add_argument("--port", type=int, default=PORT, help=f"where to listen on 127.0.0.1 (default: {PORT})")
    return parser.parse_args()


def serve(port: int) -> int:
    """Becomes MLflow's server; returns only where MLFLOW_TRACKING_URI is a server itself.

    Raises:
        InputError: there is no store yet.
    """
    from experiments.results import records, tracking

    home = records.home()
    store = tracking.store_uri(home)
    if not os.environ.get("MLFLOW_TRACKING_URI") and not (home / "mlflow.db").exists():
        raise InputError(f"{home / 'mlflow.db'}: no such store; `python -m experiments.run` makes one")
    if store.startswith("http"):
        print(f"MLFLOW_TRACKING_URI is a server with a UI of its own: {store}")
        return 0
    print(f"MLflow UI: http://127.0.0.1:{port} (store: {store}); Ctrl-C stops it", flush=True)
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    arguments = ["ui", "--backend-store-uri", store, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return os.execv(sys.executable, [sys.executable, "-m", "mlflow", *arguments])  # noqa: S606 - Ctrl-C reaches it


if __name__ == "__main__":
    main()
