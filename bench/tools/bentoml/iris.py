"""A BentoML service with adaptive batching, as its guide writes it."""

import warnings

import bentoml
import joblib
import numpy as np

warnings.filterwarnings("ignore", message="X does not have valid feature names")


@bentoml.service(workers=1)
class Iris:
    def __init__(self) -> None:
        self.model = joblib.load("iris.joblib")

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=1000)
    def predict(self, input_data: np.ndarray) -> list[str]:
        return self.model.predict(input_data).tolist()
