"""A model behind FastAPI, as tutorials show it. `MODEL_FILE=model.joblib uvicorn fastapi_app:app`"""

import os

import joblib
import numpy as np
import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
model = joblib.load(os.environ["MODEL_FILE"])


class Numbers(BaseModel):
    instances: list[list[float]]


class Customer(BaseModel):
    number0: float | None = None
    number1: float | None = None
    number2: float | None = None
    number3: float | None = None
    number4: float | None = None
    number5: float | None = None
    text0: str
    text1: str
    text2: str
    text3: str
    text4: str
    text5: str


class Customers(BaseModel):
    instances: list[Customer]


@app.post("/numbers")
async def numbers(body: Numbers):
    probabilities = model.predict_proba(np.array(body.instances))
    return {"probabilities": probabilities.tolist()}


@app.post("/customers")
async def customers(body: Customers):
    probabilities = model.predict_proba(pd.DataFrame([row.model_dump() for row in body.instances]))
    return {"probabilities": probabilities.tolist()}
