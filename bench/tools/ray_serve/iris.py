"""A Ray Serve deployment with request batching, as its guide writes it."""

import warnings

import joblib
import numpy as np
from ray import serve
from starlette.requests import Request

warnings.filterwarnings("ignore", message="X does not have valid feature names")
FIELDS = ("sepal_length", "sepal_width", "petal_length", "petal_width")


@serve.deployment(max_ongoing_requests=128)
class Iris:
    def __init__(self) -> None:
        self.model = joblib.load("iris.joblib")

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.005)
    async def batch(self, rows: list[list[float]]) -> list[str]:
        return self.model.predict(np.array(rows)).tolist()

    async def __call__(self, request: Request) -> dict[str, str]:
        iris = await request.json()
        return {"prediction": await self.batch([iris[name] for name in FIELDS])}


app = Iris.bind()
