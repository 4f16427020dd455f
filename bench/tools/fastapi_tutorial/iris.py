"""The service of the tutorials: pydantic in, a pandas frame for the model."""

import joblib
import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
model = joblib.load("iris.joblib")


class Iris(BaseModel):
    sepal_length: float
    sepal_width: float
    petal_length: float
    petal_width: float


@app.post("/predict")
async def predict(iris: Iris):
    frame = pd.DataFrame([iris.model_dump()])
    return {"prediction": model.predict(frame)[0]}
