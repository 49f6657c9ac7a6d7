"""Makes Keras know the classes of dml_tf, without importing Keras.

Keras loads a saved class only after the class has been registered, which needs Keras. Importing it
takes seconds, and much of dml_tf works without it. So `import dml_tf` registers the classes as soon
as the program itself imports Keras.
"""

import importlib
import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder

_CLASSES = "dml_tf.method.cohort"  # importing it registers them all


def register():
    """Registers the classes now if Keras is imported already, otherwise after its import."""
    if "keras" in sys.modules:
        _import_classes(sys.modules["keras"])
    else:
        sys.meta_path.insert(0, _Finder())


def _import_classes(keras):
    # Keras may be half imported, or use a backend that a cohort refuses by itself.
    if hasattr(keras, "Model") and keras.backend.backend() == "tensorflow":
        importlib.import_module(_CLASSES)


class _Finder(MetaPathFinder):
    """Waits for the import of Keras."""

    def find_spec(self, name, path=None, target=None):
        """Nothing but for `keras`, whose loader then registers the classes when it is done."""
        if name != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec("keras")
        if spec is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    """Keras's own loader, and what comes after it."""

    def __init__(self, loader: Loader):
        self._loader = loader

    def create_module(self, spec):
        """As Keras's own loader."""
        return self._loader.create_module(spec)

    def exec_module(self, module):
        """Imports Keras, then the classes."""
        self._loader.exec_module(module)
        module.__loader__ = module.__spec__.loader = self._loader
        _import_classes(module)
