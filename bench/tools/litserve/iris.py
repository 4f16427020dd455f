"""A LitServe service with batching, as its guide writes it."""

import sys
import warnings

import joblib
import litserve as ls
import numpy as np

warnings.filterwarnings("ignore", message="X does not have valid feature names")


class IrisAPI(ls.LitAPI):
    def setup(self, device):
        self.model = joblib.load("iris.joblib")

    def decode_request(self, request):
        return np.asarray(request["input"])

    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, x):
        return self.model.predict(x)

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return {"output": output}


if __name__ == "__main__":
    server = ls.LitServer(IrisAPI(max_batch_size=32, batch_timeout=0.005), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False)
