"""Files of one trained network for other programs: Keras, TensorFlow, LiteRT, ONNX.

Every file takes pixels from 0 to 255, float32, `(batch, height, width, channels)`, and gives
probabilities, `(batch, classes)`. Inside are also the names of the classes and what made the file,
as JSON: in the `metadata.json` of a `.keras` file, in the zip that ends a `.tflite` file (as
LiteRT's metadata do), in `assets.extra/` of a SavedModel, in the metadata of an ONNX file.
"""

import contextlib
import importlib.util
import json
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dml_tf.errors import FileRefused, FlagError, RunFailed

ABOUT = "dml_tf.json"
LABELS = "labels.txt"
METADATA = "metadata.json"  # of Keras
NUMBERS = ("none", "float16", "int8")  # none: float32
_INSTALL = "pip install 'dml_tf[export]'"

Run = Callable[[np.ndarray], np.ndarray]  # pixels -> probabilities


class Format(NamedTuple):
    """A kind of file.

    Attributes:
        name: Name of the file or folder, without the kind of numbers and the ending.
        suffix: Ending of the file; empty for a folder.
        write: Writes a Keras model to a path; takes the kind of numbers and calibration pixels.
        put_about: Adds the text on classes and origin.
        get_about: Reads that text.
        load: Makes a function from pixels to probabilities.
        needs: Packages that it needs beyond TensorFlow.
        can_quantize: Whether it can have other numbers than float32.
    """

    name: str
    suffix: str
    write: Callable
    put_about: Callable[[Path, dict], None]
    get_about: Callable[[Path], dict]
    load: Callable[[Path], Run]
    needs: tuple[str, ...] = ()
    can_quantize: bool = False

    def file(self, folder: Path, quantize: str) -> Path:
        """Where a file of this kind stands."""
        kind = f"_{quantize}" if self.can_quantize and quantize != "none" else ""
        return folder / f"{self.name}{kind}{self.suffix}"


def check(name: str):
    """Raises `FlagError` if a format's packages are missing."""
    missing = [each for each in FORMATS[name].needs if importlib.util.find_spec(each) is None]
    if missing:
        raise FlagError(f"--format={name} needs {', '.join(missing)}: {_INSTALL}")


def of_file(path: Path) -> Format | None:
    """The format of a file that `dml_tf deploy` wrote, or None."""
    for each in FORMATS.values():
        is_folder = each.suffix == "" and (path / "saved_model.pb").is_file()
        if is_folder or (each.suffix and path.suffix == each.suffix and path.is_file()):
            return each
    return None


def files(folder: Path) -> list[tuple[str, Path]]:
    """The files of a folder of `dml_tf deploy`, with their formats, in the order of `FORMATS`."""
    named = ((name, FORMATS[name].file(folder, kind)) for name in FORMATS for kind in NUMBERS)
    return [(name, file) for name, file in dict.fromkeys(named) if file.exists()]


def inside(path: Path) -> Path:
    """The file of a folder that `dml_tf deploy` wrote, the first of `files`; else the path."""
    return next((file for _, file in files(path)), path)


def load(each: Format, path: Path) -> Run:
    """A function from pixels to probabilities; `RunFailed` if the file cannot be run."""
    return _of_ours(each, each.load, path)


def about(each: Format, path: Path) -> dict:
    """What `dml_tf deploy` wrote into a file; `RunFailed` if it is not of `dml_tf deploy`."""
    return _of_ours(each, each.get_about, path)


def _of_ours(each: Format, read: Callable, path: Path):
    check(next(name for name in FORMATS if FORMATS[name] is each))
    try:
        return read(path)
    except FileRefused:
        raise
    except Exception as error:  # each runtime has exceptions of its own
        raise RunFailed(
            f"{path} is damaged, or was not written by `dml_tf deploy` ({error})."
        ) from error


def _write_keras(model, path: Path, quantize: str, pixels: np.ndarray):
    model.save(path)


def _load_keras(path: Path) -> Run:
    from dml_tf.networks import trusted

    return compiled(trusted.load_model(path))


def compiled(model) -> Run:
    """A Keras model as a function from pixels to probabilities."""
    import tensorflow as tf

    call = tf.function(lambda pixels: model(pixels, training=False), reduce_retracing=True)
    return lambda pixels: call(tf.constant(pixels)).numpy()


def _write_saved_model(model, path: Path, quantize: str, pixels: np.ndarray):
    model.export(path, format="tf_saved_model", verbose=False)


def _load_saved_model(path: Path) -> Run:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))

    def run(pixels: np.ndarray) -> np.ndarray:
        return loaded.serve(tf.constant(pixels)).numpy()  # `loaded` keeps the weights

    return run


def _write_litert(model, path: Path, quantize: str, pixels: np.ndarray):
    import tensorflow as tf

    options = {}
    if quantize != "none":
        options["optimizations"] = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        options["target_spec"] = {"supported_types": [tf.float16]}
    if quantize == "int8":
        options["representative_dataset"] = lambda: (
            [pixels[i : i + 1]] for i in range(len(pixels))
        )
    model.export(path, format="litert", verbose=False, **options)


def _load_litert(path: Path) -> Run:
    with contextlib.suppress(ImportError):
        from ai_edge_litert.interpreter import Interpreter

        return _litert_run(Interpreter(str(path), num_threads=1))
    import warnings

    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the interpreter has moved to ai_edge_litert
        return _litert_run(tf.lite.Interpreter(str(path), num_threads=1))


def _litert_run(interpreter) -> Run:
    signature = interpreter.get_signature_runner()
    (name,) = signature.get_input_details()
    return lambda pixels: next(iter(signature(**{name: pixels}).values()))


def _write_onnx(model, path: Path, quantize: str, pixels: np.ndarray):
    import onnx

    if quantize == "none":
        model.export(path, format="onnx", verbose=False)
        return
    with tempfile.TemporaryDirectory() as folder:
        plain, prepared = Path(folder, "float32.onnx"), Path(folder, "prepared.onnx")
        model.export(plain, format="onnx", verbose=False)
        if quantize == "float16":
            from onnxruntime.transformers.float16 import convert_float_to_float16

            onnx.save(convert_float_to_float16(onnx.load(plain), keep_io_types=True), path)
            return
        from onnxruntime import quantization

        quantization.quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared), str(path), _Calibration(onnx.load(plain).graph.input[0].name, pixels)
        )


class _Calibration:
    """Pixels, one by one, as ONNX Runtime's calibration asks for them."""

    def __init__(self, name: str, pixels: np.ndarray):
        self._left = ({name: one[np.newaxis]} for one in pixels)

    def get_next(self) -> dict | None:
        """The next picture; None after the last."""
        return next(self._left, None)


def _load_onnx(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels})[0]


def _put_in_keras(path: Path, about: dict):
    """Adds to the metadata: Keras's files have no other members."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    metadata = json.loads(members[METADATA]) | {"dml_tf": about}
    members[METADATA] = json.dumps(metadata).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _get_from_keras(path: Path) -> dict:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(METADATA))["dml_tf"]


def _put_in_zip(path: Path, about: dict):
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(ABOUT, json.dumps(about))
        archive.writestr(LABELS, "\n".join(about["classes"]) + "\n")


def _get_from_zip(path: Path) -> dict:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(ABOUT))


def _put_in_folder(path: Path, about: dict):
    extra = path / "assets.extra"
    extra.mkdir(exist_ok=True)
    (extra / ABOUT).write_text(json.dumps(about), encoding="utf-8")
    (extra / LABELS).write_text("\n".join(about["classes"]) + "\n", encoding="utf-8")


def _get_from_folder(path: Path) -> dict:
    return json.loads((path / "assets.extra" / ABOUT).read_text(encoding="utf-8"))


def _put_in_onnx(path: Path, about: dict):
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"dml_tf": json.dumps(about)})
    onnx.save(model, path)


def _get_from_onnx(path: Path) -> dict:
    import onnxruntime

    session = onnxruntime.InferenceSession(os.fspath(path))
    return json.loads(session.get_modelmeta().custom_metadata_map["dml_tf"])


FORMATS = {
    "keras": Format("model", ".keras", _write_keras, _put_in_keras, _get_from_keras, _load_keras),
    "saved_model": Format(
        "saved_model", "", _write_saved_model, _put_in_folder, _get_from_folder, _load_saved_model
    ),
    "litert": Format(
        "model", ".tflite", _write_litert, _put_in_zip, _get_from_zip, _load_litert,
        can_quantize=True,
    ),
    "onnx": Format(
        "model", ".onnx", _write_onnx, _put_in_onnx, _get_from_onnx, _load_onnx,
        needs=("tf2onnx", "onnx", "onnxruntime"), can_quantize=True,
    ),
}  # fmt: skip
