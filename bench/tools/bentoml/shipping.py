"""A BentoML service with adaptive batching, as its guide writes it."""

import pickle
from pathlib import Path

import bentoml
import numpy as np


@bentoml.service(workers=1)
class Shipping:
    def __init__(self) -> None:
        self.model = pickle.loads(Path("shipping.pkl").read_bytes())

    @bentoml.api(batchable=True, max_batch_size=1000, max_latency_ms=1000)
    def predict(self, input_data: np.ndarray) -> np.ndarray:
        return self.model.predict(input_data)
