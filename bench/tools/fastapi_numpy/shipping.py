"""FastAPI written with care: a numpy array for the model, the answer as a response that needs no second validation."""

import pickle
from operator import attrgetter
from pathlib import Path

import numpy as np
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel

app = FastAPI()
model = pickle.loads(Path("shipping.pkl").read_bytes())
values = attrgetter("price", "product_weight_g", "product_height_cm", "delivery_distance_km", "product_volume_cm3")


class Order(BaseModel):
    price: float
    product_weight_g: float
    product_height_cm: float
    delivery_distance_km: float
    product_volume_cm3: float


@app.post("/predict")
async def predict(order: Order) -> JSONResponse:
    return JSONResponse({"prediction": float(model.predict(np.array([values(order)]))[0])})


@app.post("/predict_many")
async def predict_many(orders: list[Order]) -> JSONResponse:
    prices = model.predict(np.array([values(order) for order in orders]))
    return JSONResponse([{"prediction": price} for price in prices.tolist()])
