"""A Ray Serve deployment with request batching for single orders, as its guide writes it."""

import pickle
from pathlib import Path

import numpy as np
from ray import serve
from starlette.requests import Request

FIELDS = ("price", "product_weight_g", "product_height_cm", "delivery_distance_km", "product_volume_cm3")


@serve.deployment(max_ongoing_requests=128)
class Shipping:
    def __init__(self) -> None:
        self.model = pickle.loads(Path("shipping.pkl").read_bytes())

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.005)
    async def batch(self, rows: list[list[float]]) -> list[float]:
        return self.model.predict(np.array(rows)).tolist()

    async def __call__(self, request: Request) -> dict[str, float] | list[dict[str, float]]:
        orders = await request.json()
        if isinstance(orders, dict):
            return {"prediction": await self.batch([orders[name] for name in FIELDS])}
        prices = self.model.predict(np.array([[order[name] for name in FIELDS] for order in orders]))
        return [{"prediction": price} for price in prices.tolist()]


app = Shipping.bind()
