"""One network of a run as a Keras model from pixels to probabilities."""

import numpy as np

from dml_tf.tools.trained import Trained


def deployable(run: Trained, cohort, peer: str):
    """A Keras model from pixels (0 to 255) to the probabilities of a peer or of the ensemble.

    It is made of Keras's own layers, in float32, so that it loads without this package.
    """
    import keras

    mean, std = (np.array(run.record["input"][name], np.float64) for name in ("mean", "std"))
    pixels = keras.Input(run.record["input"]["shape"], name="pixels")
    # The same factors as in training: (pixels / 255 - mean) / std.
    images = keras.layers.Rescaling((1 / (255 * std)).tolist(), (-mean / std).tolist())(pixels)
    chosen = [
        _plain(network, name)
        for name, network in zip(cohort.peer_names, cohort.networks, strict=True)
        if peer in (name, "ensemble")
    ]
    outputs = [network(images) for network in chosen]
    logits = [each["logits"] if isinstance(each, dict) else each for each in outputs]
    posteriors = [keras.layers.Softmax()(each) for each in logits]
    if len(posteriors) > 1:
        posteriors = [keras.layers.Average()(posteriors)]
    return keras.Model(pixels, posteriors[0], name=peer)


def _plain(network, name: str):
    """A copy of a network in Keras's own layers, with the same weights."""
    import keras

    from dml_tf.networks.layers import BatchNormalization

    def copy(layer):
        kind = keras.layers.BatchNormalization if isinstance(layer, BatchNormalization) else None
        settings = layer.get_config()
        if kind:
            settings.pop("ema", None)  # averages of the statistics, which are in their place by now
        if "dtype" in settings:
            settings["dtype"] = "float32"
        return (kind or type(layer)).from_config(settings)

    plain = keras.models.clone_model(network, clone_function=copy)
    plain.name = name  # networks of one model need different names
    for ours, theirs in zip(plain.layers, network.layers, strict=True):
        ours.set_weights(theirs.get_weights()[: len(ours.weights)])  # those averages come last
    return plain


def about(run: Trained, peer: str) -> dict:
    """What travels inside every file."""
    return {
        "classes": run.record["classes"],
        "shape": run.record["input"]["shape"],
        "pixels": "0 to 255, float32, (batch, height, width, channels)",
        "run_id": run.record["run_id"],
        "peer": peer,
        "dataset": run.record["config"]["dataset"],
        "dml_tf": run.record["versions"]["dml_tf"],
    }
