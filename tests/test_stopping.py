"""Early stopping on validation images, and AdamW's decoupled decay."""

import keras
import numpy as np
import pytest

from dml_tf.errors import FlagError
from dml_tf.method import optimizers
from dml_tf.runs import build, config, train
from dml_tf.runs.checkpoint import Checkpoint
from dml_tf.runs.stopping import StopEarly, best_epoch

SMALL = {
    "dataset": "digits", "net": ("resnet8:4",), "image_size": 8, "batch_size": 16,
    "validation_fraction": 0.2,
}  # fmt: skip


def settings(tmp_path, **changes):
    return config.load(**{**SMALL, "results_dir": str(tmp_path), **changes})


def one_weight():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.optimizers = [keras.optimizers.SGD()]
    model.stop_training = False
    model.optimizers[0].build(model.trainable_variables)
    return model


def test_training_stops_after_the_patience_and_the_best_weights_return(tmp_path):
    asked = settings(tmp_path, epochs=9, patience=2)
    checkpoint = Checkpoint(tmp_path / "state", asked)
    model, stop = one_weight(), StopEarly(2, checkpoint)
    for callback in (stop, checkpoint):
        callback.set_model(model)
        callback.on_train_begin()
    for epoch, accuracies in enumerate([(0.5, 0.1), (0.4, 0.4), (0.8, 0.0), (0.7, 0.1)]):
        assert not model.stop_training
        model.set_weights([np.full((1, 1), epoch)])
        model.optimizers[0].iterations.assign(10 * (epoch + 1))
        logs = {"val_a_accuracy": accuracies[0], "val_b_accuracy": accuracies[1]}
        logs |= {"val_ensemble_accuracy": 0.1 * epoch, "a_accuracy": 0.1 * epoch}
        stop.on_epoch_end(epoch, logs)  # epoch 2 has the best mean; 3 only equals it
        checkpoint.on_epoch_end(epoch, logs)
        if epoch == 1:  # the best one, on disk with its checkpoint however short the epochs are
            assert Checkpoint(tmp_path / "state", asked).restore(one_weight()) == 2
    assert model.stop_training and stop.is_over
    assert stop.restore(model) == best_epoch(checkpoint.history) == 2
    assert model.get_weights()[0].item() == 1
    assert int(model.optimizers[0].iterations) == 40


def test_a_run_that_stops_early_measures_the_best_epochs_weights(tmp_path):
    asked = settings(tmp_path, epochs=8, patience=1, learning_rate=0.5, train_images=64, mixup=0.4)
    record = train.run(asked, verbose=0)
    accuracies = record["history"]["val_resnet8_accuracy"]
    assert record["best_epoch"] == len(accuracies) - 1 == 1 + int(np.argmax(accuracies))
    assert record["validation"]["peers"]["resnet8"]["accuracy"] == pytest.approx(max(accuracies))
    assert record["steps"] == len(accuracies) * (64 // 16)


def test_early_stopping_needs_validation_images(tmp_path):
    with pytest.raises(FlagError, match="--patience=3 needs validation images"):
        train.run(settings(tmp_path, validation_fraction=0.0, patience=3))
    with pytest.raises(FlagError, match="--patience=3 chooses an epoch by validation images"):
        settings(tmp_path, validation_fraction=0.0, watch_test=True, patience=3)
    with pytest.raises(FlagError, match="--patience=3 is for --placement=one"):
        settings(tmp_path, patience=3, placement="data")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"labelled_fraction": 0.5}, "--mixup=0.2 mixes labels, which some images lack"),
        ({"placement": "data"}, "--mixup=0.2 mixes whole batches"),
        ({"dataset": "pedestrians", "validation_fraction": 0.0}, "--mixup=0.2 is not for --data"),
    ],
)
def test_mixup_is_refused_where_labels_cannot_be_mixed(tmp_path, flags, message):
    with pytest.raises(FlagError, match=message):
        settings(tmp_path, mixup=0.2, **flags)


def test_adamw_decays_kernels_only_and_apart_from_the_gradient(tmp_path):
    kernel, gamma = keras.Variable([2.0], name="kernel"), keras.Variable([2.0], name="gamma")
    adamw = optimizers.build("adamw", 0.1, weight_decay=0.5)
    adamw.build([kernel, gamma])
    zeros = [keras.ops.zeros(1), keras.ops.zeros(1)]
    adamw.apply(zeros, [kernel, gamma])
    assert float(kernel[0]) == pytest.approx(2 - 0.1 * 0.5 * 2)
    assert float(gamma[0]) == 2
    asked = settings(tmp_path, optimizer="adamw", weight_decay=0.05, learning_rate=1e-3)
    cohort = build.build_cohort(asked, build.load_data(asked))
    assert cohort.networks[0].losses == []  # the decay is not coupled, too
    assert cohort.optimizers[0].weight_decay == 0.05
