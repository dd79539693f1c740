"""Optimizers: how a gradient becomes a step. The rate's course over the run is the schedule's (`schedules.py`).

Weight decay is decoupled (Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019) and never touches biases
and normalisation parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from experiments.ingredients.option import Count, FractionBelowOne, NonNegative, Option, Positive

if TYPE_CHECKING:
    import keras

NEVER_DECAYED = ["bias", "gamma", "beta"]  # the last parts of Keras' variable paths


class OptimizerOption(Option):
    """What every optimizer can be asked. One of its own gives `create`."""

    group: ClassVar[str] = "optimizer"
    name: str
    learning_rate: Positive
    weight_decay: NonNegative

    def build(self, rate: Any) -> keras.Optimizer:
        """The Keras optimizer whose learning rate follows `rate`, a Keras `LearningRateSchedule`."""
        import keras

        optimizer = self.create(keras.optimizers, {"learning_rate": rate, "weight_decay": self.weight_decay or None})
        optimizer.exclude_from_weight_decay(var_names=NEVER_DECAYED)
        return optimizer

    def create(self, optimizers: Any, shared: dict[str, Any]) -> keras.Optimizer:
        """The Keras optimizer: `optimizers` is `keras.optimizers`, `shared` its learning rate and weight decay.

        Raises:
            NotImplementedError: it has a `build` of its own.
        """
        raise NotImplementedError


class SGD(OptimizerOption):
    """Plain stochastic gradient descent: one step is `-learning_rate * gradient`."""

    name: Literal["sgd"]

    def create(self, optimizers: Any, shared: dict[str, Any]) -> keras.Optimizer:
        return optimizers.SGD(**shared)


class SGDMomentum(OptimizerOption):
    """SGD with (Nesterov) momentum. Source: Sutskever et al., On the Importance of Initialization, 2013."""

    name: Literal["sgd_momentum"]
    momentum: FractionBelowOne
    nesterov: bool

    def create(self, optimizers: Any, shared: dict[str, Any]) -> keras.Optimizer:
        return optimizers.SGD(momentum=self.momentum, nesterov=self.nesterov, **shared)


class RMSprop(OptimizerOption):
    """RMSprop. Source: G. Hinton, Neural Networks for Machine Learning, lecture 6e, 2012."""

    name: Literal["rmsprop"]
    rho: FractionBelowOne
    momentum: FractionBelowOne
    epsilon: Positive

    def create(self, optimizers: Any, shared: dict[str, Any]) -> keras.Optimizer:
        return optimizers.RMSprop(rho=self.rho, momentum=self.momentum, epsilon=self.epsilon, **shared)


class _Moments(OptimizerOption):
    beta_1: FractionBelowOne
    beta_2: FractionBelowOne
    epsilon: Positive

    def _moments(self) -> dict[str, float]:
        return {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}


class Adam(_Moments):
    """Adam. Source: Kingma and Ba, Adam: A Method for Stochastic Optimization, 2015."""

    name: Literal["adam"]

    def create(self, optimizers: Any, shared: dict[str, Any]) -> keras.Optimizer:
        return optimizers.Adam(**self._moments(), **shared)


class AdamW(_Moments):
    """Adam with decoupled weight decay. Source: Loshchilov and Hutter, 2019."""

    name: Literal["adamw"]

    def create(self, optimizers: Any, shared: dict[str, Any]) -> keras.Optimizer:
        return optimizers.AdamW(**self._moments(), **shared | {"weight_decay": self.weight_decay})


class Nadam(_Moments):
    """Adam with Nesterov momentum. Source: T. Dozat, Incorporating Nesterov Momentum into Adam, 2016."""

    name: Literal["nadam"]

    def create(self, optimizers: Any, shared: dict[str, Any]) -> keras.Optimizer:
        return optimizers.Nadam(**self._moments(), **shared)


class Adagrad(OptimizerOption):
    """Adagrad. Source: Duchi et al., Adaptive Subgradient Methods, 2011."""

    name: Literal["adagrad"]
    initial_accumulator: NonNegative
    epsilon: Positive

    def create(self, optimizers: Any, shared: dict[str, Any]) -> keras.Optimizer:
        return optimizers.Adagrad(initial_accumulator_value=self.initial_accumulator, epsilon=self.epsilon, **shared)


class Lion(OptimizerOption):
    """Lion, steps by the sign of a momentum. Source: Chen et al., Symbolic Discovery of Optimizers, 2023."""

    name: Literal["lion"]
    beta_1: FractionBelowOne
    beta_2: FractionBelowOne

    def create(self, optimizers: Any, shared: dict[str, Any]) -> keras.Optimizer:
        return optimizers.Lion(beta_1=self.beta_1, beta_2=self.beta_2, **shared)


class Muon(OptimizerOption):
    """Muon orthogonalises the momentum of matrices; every other variable gets AdamW.

    Source: K. Jordan, Muon, 2024; step size by Liu et al., Muon is Scalable for LLM Training, 2025. In Keras a matrix
    is a dense kernel: convolution kernels have four axes and are left to AdamW.
    """

    name: Literal["muon"]
    momentum: FractionBelowOne
    nesterov: bool
    newton_schulz_steps: Count
    beta_1: FractionBelowOne
    beta_2: FractionBelowOne
    epsilon: Positive

    def create(self, optimizers: Any, shared: dict[str, Any]) -> keras.Optimizer:
        return optimizers.Muon(
            momentum=self.momentum,
            nesterov=self.nesterov,
            ns_steps=self.newton_schulz_steps,
            adam_beta_1=self.beta_1,
            adam_beta_2=self.beta_2,
            adam_weight_decay=shared["weight_decay"],
            epsilon=self.epsilon,
            **shared,
        )


Optimizer = Annotated[
    SGD | SGDMomentum | RMSprop | Adam | AdamW | Nadam | Adagrad | Lion | Muon, Field(discriminator="name")
]
