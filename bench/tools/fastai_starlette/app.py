"""An exported learner behind Starlette, as fast.ai's own example for production has it: https://github.com/render-examples/fastai-v3."""

from fastai.learner import load_learner
from fastai.vision.core import PILImage
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

learn = load_learner("export.pkl")


async def predict(request: Request) -> JSONResponse:
    picture = PILImage.create(await request.body())
    with learn.no_bar():
        label, _, chances = learn.predict(picture)
    labels = learn.dls.vocab
    return JSONResponse({"prediction": str(label), "probabilities": dict(zip(labels, chances.tolist(), strict=True))})


app = Starlette(routes=[Route("/predict", predict, methods=["POST"])])
