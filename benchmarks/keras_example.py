"""The yardstick of time to 99 %: Keras' own example for MNIST, trained until its test accuracy is there.

Prints the seconds of its training so far, tests left out. Source: F. Chollet, Simple MNIST convnet, keras.io, 2015.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

GOAL, MOST_EPOCHS = 0.99, 30


def main() -> None:
    with np.load(Path(os.environ["EXPERIMENTS_DATA"]) / "mnist.npz") as arrays:
        images, test_images = (arrays[name][..., None].astype(np.float32) / 255 for name in ("x_train", "x_test"))
        labels, test_labels = (keras.utils.to_categorical(arrays[name], 10) for name in ("y_train", "y_test"))
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((28, 28, 1)),
        layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(),
        layers.Conv2D(64, 3, activation="relu"), layers.MaxPooling2D(),
        layers.Flatten(), layers.Dropout(0.5), layers.Dense(10, activation="softmax"),
    ])  # fmt: skip
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    seconds, accuracy, epoch = 0.0, 0.0, 0
    while accuracy < GOAL and epoch < MOST_EPOCHS:
        started = time.perf_counter()
        model.fit(images, labels, batch_size=128, epochs=1, validation_split=0.1, verbose=0)
        seconds += time.perf_counter() - started
        accuracy = model.evaluate(test_images, test_labels, verbose=0)[1]
        epoch += 1
    if accuracy < GOAL:
        raise SystemExit(f"{accuracy:.2%} after {epoch} epochs")
    print(seconds)


if __name__ == "__main__":
    main()
