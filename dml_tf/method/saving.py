"""How a cohort is written to a file and read back."""

from functools import partial
from typing import Self

import keras

from dml_tf.method import checks, peers

# What a file keeps as it is; networks, mimicry and names need a form of their own.
_OPTIONS = (
    "update", "peer_reduction", "ensemble_average", "temperature", "feature_weight",
    "entropy_weight", "label_smoothing", "frozen", "stale_steps", "own_views",
)  # fmt: skip


class Saving:
    """The part of a `Cohort` that Keras calls to save and load it."""

    def save(self, filepath, *args, **kw):
        """Writes peers, optimizers and options to a `.keras` file, as Keras's `save`.

        Raises:
            ValueError: The file is of the legacy HDF5 format.
        """
        checks.check_file(filepath)
        super().save(filepath, *args, **kw)

    def export(self, filepath, format="tf_saved_model", input_signature=None, **kw):
        """Writes the posteriors of `call` for serving, as Keras's `export`.

        Raises:
            ValueError: No signature is given, and that of a network is not known.
        """
        if input_signature is None:
            for name, network in zip(self.peer_names, self.networks, strict=True):
                if getattr(network, "input_shape", None) is None:
                    raise ValueError(
                        "export takes functional or sequential networks that are built, and "
                        f"{name!r} is none: write it as a keras.Model(inputs, outputs)."
                    )
            shape = self.networks[0].input_shape
            input_signature = [keras.InputSpec(dtype="float32", shape=shape)]
        return super().export(filepath, format, input_signature=input_signature, **kw)

    def get_config(self) -> dict:
        """Options and peers, for `keras.saving`."""
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            **{option: getattr(self, option) for option in _OPTIONS},
            "networks": [serialize(network) for network in self.networks],
            "mimicry": serialize(self.mimicry),
            "mimicry_weight": serialize(self.mimicry_weight),
            "names": list(self.peer_names),
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> Self:
        """Makes a cohort, with new weights, from `get_config`'s result."""
        read = partial(keras.saving.deserialize_keras_object, custom_objects=custom_objects)
        made = {"networks": [read(network) for network in config["networks"]]}
        for option in ("mimicry", "mimicry_weight"):  # names and numbers stand for themselves
            chosen = config[option]
            made[option] = read(chosen) if isinstance(chosen, dict) else chosen
        if callable(made["mimicry"]) and not isinstance(made["mimicry"], keras.losses.Loss):
            made["temperature"] = 1.0  # in older files a number without effect
        return cls(**{**config, **made})

    def get_compile_config(self) -> dict:
        """Optimizers and options of `compile`, for `keras.saving`."""
        if not self.compiled:
            return {}
        return {
            "optimizers": [keras.saving.serialize_keras_object(o) for o in self.optimizers],
            **self._user_metrics.get_config(),
            "jit_compile": self._asked_jit_compile,  # by default, where it is loaded decides
            "run_eagerly": self.run_eagerly,
            "steps_per_execution": self.steps_per_execution,
        }

    def compile_from_config(self, config: dict):
        """Compiles with what `get_compile_config` returned."""
        if config:
            objects = ("optimizers", "metrics", "weighted_metrics")
            read = keras.saving.deserialize_keras_object
            made = {key: [read(o) for o in config[key]] for key in objects if key in config}
            self.compile(**{**config, **made})

    def save_own_variables(self, store):
        """Writes what Keras leaves out: the networks' seed generators and the peers' copies."""
        for i, state in enumerate(self._left_out()):
            store[str(i)] = keras.ops.convert_to_numpy(state)

    def load_own_variables(self, store):
        """Reads what `save_own_variables` wrote."""
        for i, state in enumerate(self._left_out()):
            state.assign(store[str(i)])

    def _left_out(self) -> list[keras.Variable]:
        return [*peers.random_states(self.networks), *self.stale_variables]
