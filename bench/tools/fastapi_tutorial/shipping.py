"""The service of the tutorials: pydantic in, a pandas frame for the model."""

import pickle

import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
with open("shipping.pkl", "rb") as file:  # noqa: PTH123 as the tutorials write it
    model = pickle.load(file)


class Order(BaseModel):
    price: float
    product_weight_g: float
    product_height_cm: float
    delivery_distance_km: float
    product_volume_cm3: float


@app.post("/predict")
async def predict(order: Order):
    frame = pd.DataFrame([order.model_dump()])
    return {"prediction": float(model.predict(frame)[0])}


@app.post("/predict_many")
async def predict_many(orders: list[Order]):
    frame = pd.DataFrame([order.model_dump() for order in orders])
    return [{"prediction": float(price)} for price in model.predict(frame)]
