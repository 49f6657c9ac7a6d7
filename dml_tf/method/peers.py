"""The peers of a cohort: trained here, frozen, or trained by another process."""

import keras


class Remote(keras.Model):
    """Stands in a cohort for a peer that another process trains: a name, without outputs."""

    def __init__(self, name: str):
        super().__init__(name=name)
        self.built = True

    def call(self, inputs, training=False) -> dict:
        """Nothing: the peer's outputs come by the placement's exchange."""
        return {}
