"""A LitServe service as its guide writes it: with batching for single orders, without for requests that are batches already."""

import pickle
import sys
from pathlib import Path

import litserve as ls
import numpy as np


class ShippingAPI(ls.LitAPI):
    def setup(self, device):
        self.model = pickle.loads(Path("shipping.pkl").read_bytes())

    def decode_request(self, request):
        return np.asarray(request["input"])

    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, x):
        return self.model.predict(x)

    def unbatch(self, output):
        return output.tolist()

    def encode_response(self, output):
        return {"output": output}


class ManyAPI(ShippingAPI):
    def encode_response(self, output):
        return {"output": output.tolist()}


if __name__ == "__main__":
    api = ManyAPI(max_batch_size=1) if sys.argv[2:] == ["many"] else ShippingAPI(max_batch_size=32, batch_timeout=0.005)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False)
