"""The yardstick: a script without a framework. `python benchmarks/bare.py FOLDER EPOCHS [OPTIMIZER]`.

It trains the default network on MNIST as the default config does, evaluates, saves the model, the history and the
predictions, and draws the same figures with the same functions.
"""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from experiments.ingredients.datasets import MNIST_DOUBTFUL
from experiments.results import plots
from experiments.results.evaluation import evaluate, find_overfitting

PEAK = {"sgd": 0.1, "rmsprop": 0.003, "adam": 0.003}
BATCH, VALIDATION = 128, 6000


def main(folder: Path, epochs: int, optimizer: str = "adam") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    with np.load(Path(os.environ["EXPERIMENTS_DATA"]) / "mnist.npz") as arrays:
        images, test_images = arrays["x_train"][..., None], arrays["x_test"][..., None]
        labels, test_labels = arrays["y_train"].astype(np.int64), arrays["y_test"].astype(np.int64)
    one_hot = keras.utils.to_categorical(labels, 10)
    train, validation = slice(None, -VALIDATION), slice(-VALIDATION, None)
    model = build(optimizer, epochs * -(-len(images[train]) // BATCH))
    history = model.fit(
        images[train], one_hot[train], batch_size=BATCH, epochs=epochs, verbose=2,
        validation_data=(images[validation], one_hot[validation]),
    ).history  # fmt: skip
    probabilities = model.predict(test_images, verbose=0)
    seen = model.predict(images[:VALIDATION], verbose=0)
    held_out = model.predict(images[validation], verbose=0)
    model.save(folder / "model.keras")
    np.savez(folder / "predictions.npz", probabilities=probabilities, labels=test_labels)
    evaluation = evaluate(probabilities, test_labels, doubtful=MNIST_DOUBTFUL)
    overfitting = find_overfitting(
        history["loss"], history["val_loss"], images=VALIDATION,
        train_accuracy=evaluate(seen, labels[:VALIDATION]).accuracy,
        validation_accuracy=evaluate(held_out, labels[validation]).accuracy,
    )  # fmt: skip
    columns = save_history(folder, history, PEAK[optimizer], epochs)
    digits = tuple("0123456789")
    shown = plots.Predictions(test_images, test_labels, probabilities, digits, MNIST_DOUBTFUL)
    drawings = (
        plots.figures_of_epochs(columns, overfitting, "mnist")
        | plots.figures_of_classes(evaluation, digits, "mnist")
        | plots.figures_of_images(shown, "mnist")
    )
    for stem, figure in drawings.items():
        plots.save(figure(), folder / f"{stem}.png")
    print(f"test accuracy {evaluation.accuracy:.2%}")


def build(optimizer: str, steps: int) -> keras.Model:
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((28, 28, 1)), layers.Rescaling(1 / 255),
        layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(),
        layers.Conv2D(64, 3, activation="relu"), layers.MaxPooling2D(),
        layers.Flatten(), layers.Dropout(0.5), layers.Dense(10, activation="softmax"),
    ])  # fmt: skip
    rate = keras.optimizers.schedules.CosineDecay(PEAK[optimizer], steps)
    kinds = {"sgd": keras.optimizers.SGD, "rmsprop": keras.optimizers.RMSprop, "adam": keras.optimizers.Adam}
    model.compile(kinds[optimizer](rate), "categorical_crossentropy", metrics=["accuracy"])
    return model


def save_history(folder: Path, history: dict[str, list[float]], peak: float, epochs: int) -> dict[str, np.ndarray]:
    columns = {
        "epoch": np.arange(1, epochs + 1), "learning_rate": np.linspace(peak, 0, epochs),
        "train/loss": np.array(history["loss"]), "train/cross_entropy": np.array(history["loss"]),
        "train/accuracy": np.array(history["accuracy"]), "validation/loss": np.array(history["val_loss"]),
        "validation/cross_entropy": np.array(history["val_loss"]),
        "validation/accuracy": np.array(history["val_accuracy"]),
    }  # fmt: skip
    with (folder / "history.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return columns


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
