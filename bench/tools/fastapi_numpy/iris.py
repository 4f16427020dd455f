"""FastAPI written with care: a numpy array for the model, the answer as a response that needs no second validation."""

import warnings

import joblib
import numpy as np
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel

warnings.filterwarnings("ignore", message="X does not have valid feature names")
app = FastAPI()
model = joblib.load("iris.joblib")


class Iris(BaseModel):
    sepal_length: float
    sepal_width: float
    petal_length: float
    petal_width: float


@app.post("/predict")
async def predict(iris: Iris) -> JSONResponse:
    row = np.array([[iris.sepal_length, iris.sepal_width, iris.petal_length, iris.petal_width]])
    return JSONResponse({"prediction": model.predict(row)[0]})
