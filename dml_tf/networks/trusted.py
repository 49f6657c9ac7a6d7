"""The one way in which models and weights are read: checked first, then opened by Keras.

A file of Keras can name any class, function or other file, and Keras's own judgement of what is
safe has failed often. Nothing of a file is used here before all of it has been checked.
"""

import json
import math
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Collection
from pathlib import Path

import keras

from dml_tf.errors import FileRefused
from dml_tf.networks import hdf5, known

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
# Member -> the most bytes that it may have.
_MOST = {_CONFIG: 16 << 20, _METADATA: 64 << 10, _WEIGHTS: 16 << 30}


def load_model(file: str | Path, allow: Collection[str] = ()) -> keras.Model:
    """Reads a `.keras` file after a check that it can do nothing but compute.

    It must have exactly Keras's three members, not compressed. Its config may name our networks
    and layers and plain layers of Keras, no path, no `Lambda` and nothing else that runs or reads
    what the file says. Its weights are HDF5 without links or other files. The model may need no
    more memory than the file has weights: this is known before any memory is taken.

    Args:
        file: A `.keras` file: a network, or a cohort (import `dml_tf.Cohort` first).
        allow: Names of modules of your own, already imported, whose classes the file may contain;
            the classes must be registered with Keras.

    Returns:
        The model, with its weights; not compiled.

    Raises:
        FileNotFoundError: There is no such file.
        FileRefused: The file is damaged, or has anything else in it. The message says what.

    Examples:
        >>> import tempfile
        >>> from dml_tf import networks
        >>> net = networks.build("resnet8:4", num_classes=3, input_shape=(8, 8, 1))
        >>> file = Path(tempfile.mkdtemp()) / "net.keras"
        >>> net.save(file)
        >>> load_model(file).name
        'resnet8'
    """
    file = _existing(file)
    if file.suffix in (".h5", ".hdf5"):
        raise FileRefused(
            f"{file} is refused: models in the old .h5 form run what they contain when they are "
            "opened. Where you trust the file, open it with Keras and save it as .keras."
        )
    if file.suffix != ".keras":
        raise FileRefused(f"{file} is refused: a model is a .keras file, by its name too.")
    try:
        with zipfile.ZipFile(file) as archive, tempfile.TemporaryDirectory() as folder:
            _check_members(archive, file)
            config = _read_config(archive, file, allow)
            weights = Path(folder, _WEIGHTS)
            with archive.open(_WEIGHTS) as packed, weights.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, 1 << 20)
            return _build(config, weights, file)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError) as error:
        raise FileRefused(
            f"{file} cannot be read ({error}): it is damaged, or no .keras file. Get it again."
        ) from error


def load_weights(network: keras.Model, file: str | Path, skip_mismatch: bool = False) -> None:
    """Reads a `.weights.h5` file into a network, after a check that it holds numbers only.

    Args:
        network: A built network.
        file: What `network.save_weights` wrote.
        skip_mismatch: Leave weights of other shapes alone, with Keras's warning.

    Raises:
        FileNotFoundError: There is no such file.
        FileRefused: It is damaged, has anything but plain arrays, or does not fit the network.
    """
    file = _existing(file)
    if not file.name.endswith(".weights.h5"):
        raise FileRefused(
            f"{file} is refused: weights are in a .weights.h5 file, by its name too, as "
            "`save_weights` writes it."
        )
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, _WEIGHTS)  # so that what was checked is what is read
        shutil.copyfile(file, copy)
        hdf5.check(copy, str(file))
        _into(network, copy, file, skip_mismatch)


def _existing(file: str | Path) -> Path:
    file = Path(file).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {file}.")
    return file


def _check_members(archive: zipfile.ZipFile, file: Path):
    members = archive.infolist()
    names = sorted(member.filename for member in members)
    if names != sorted(_MOST):
        raise FileRefused(
            f"{file} is refused: it has the members {', '.join(names[:6])[:300]}; a model has "
            f"exactly {', '.join(sorted(_MOST))}."
        )
    for member in members:
        if member.flag_bits & 1 or member.compress_type != zipfile.ZIP_STORED:
            raise FileRefused(
                f"{file} is refused: its {member.filename} is compressed or encrypted, which Keras "
                "never does. Save the model again."
            )
        if member.file_size > min(_MOST[member.filename], file.stat().st_size):
            raise FileRefused(
                f"{file} is refused: its {member.filename} has {member.file_size} bytes, more than "
                f"the {_MOST[member.filename]} of any model, or than the file."
            )


def _read_config(archive: zipfile.ZipFile, file: Path, allow: Collection[str]) -> dict:
    try:
        config = json.loads(archive.read(_CONFIG))
        known.check(config, allow)
    except known.Unknown as error:
        raise FileRefused(
            f"{file} is refused: {error}. Models here are made of Keras's plain layers and of "
            "classes that your own code has registered."
        ) from error
    except (ValueError, RecursionError) as error:
        raise FileRefused(
            f"{file} is refused: its {_CONFIG} is no JSON of a model ({error})."
        ) from error
    return known.without_compilation(config)


def _build(config: dict, weights: Path, file: Path) -> keras.Model:
    stored = hdf5.check(weights, f"{_WEIGHTS} of {file}")
    try:
        # Variables made in this scope get their memory at its end.
        with keras.StatelessScope() as scope:
            scope.initialize_variables = False
            model = keras.saving.deserialize_keras_object(config, safe_mode=True)
            _check_size(model, stored, file)
            scope.initialize_variables = True
    except FileRefused:
        keras.utils.clear_session()  # or a later model would make the refused one's variables
        raise
    except Exception as error:  # a config can make Keras raise anything
        keras.utils.clear_session()
        raise FileRefused(
            f"{file} is refused: Keras cannot build its model ({_short(error)})."
        ) from error
    _into(model, weights, file)
    return model


def _check_size(model: object, stored: int, file: Path):
    """Refuses a model whose variables are larger than what the file has for them."""
    if not isinstance(model, keras.Model):
        raise FileRefused(f"{file} is refused: it contains a {type(model).__name__}, no model.")
    needed = sum(math.prod(variable.shape) for variable in model.variables)
    if needed > stored:
        raise FileRefused(
            f"{file} is refused: its model has {needed} weights, and the file only {stored}."
        )


def _into(network: keras.Model, weights: Path, file: Path, skip_mismatch: bool = False):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            network.load_weights(weights, skip_mismatch=skip_mismatch)
            if caught and not skip_mismatch:  # Keras may warn that layers keep their first weights
                raise ValueError(caught[0].message)
        except Exception as error:  # Keras raises what NumPy, h5py and it itself find
            raise FileRefused(
                f"{file} is refused: its weights do not fit {network.name} ({_short(error)})."
            ) from error
    for warning in caught:
        warnings.warn(warning.message, stacklevel=3)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
