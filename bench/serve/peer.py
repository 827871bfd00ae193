"""A scoring server that works as text-embeddings-inference does: ONNX Runtime, first come first served, padded batches.

    python bench/serve/peer.py --model DIR --port 8081 [--precision f32|int8] [--batch 8]

It speaks `POST /predict` with one pair a request. Requests wait in one queue; as soon as the session is free, the first
`--batch` of it are padded to the longest and run. Tokenising happens on arrival. The HTTP side is uvicorn with httptools
and uvloop on a bare ASGI function, so that little of the time is Python's. The model is exported and fused as in
`bench/peers/score_peer.py`. It prints `ready` when it has scored once.
"""

import argparse
import asyncio
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import uvicorn
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
import score_peer  # noqa: E402


def settings():
    parser = argparse.ArgumentParser(description="A server in the manner of text-embeddings-inference.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--precision", choices=["f32", "int8"], default="f32")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/kudos-bench")
    return parser.parse_args()


class Batcher:
    def __init__(self, args):
        self.scores = score_peer.onnxruntime(args, args.precision == "int8")
        self.tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
        self.tokenizer.enable_truncation(score_peer.LIMIT)
        self.tokenizer.no_padding()
        self.batch = args.batch
        self.queue = asyncio.Queue()
        self.pool = ThreadPoolExecutor(1)

    def run(self, ids):
        longest = max(map(len, ids))
        padded = np.array([i + [0] * (longest - len(i)) for i in ids], np.int64)
        mask = np.array([[1] * len(i) + [0] * (longest - len(i)) for i in ids], np.int64)
        return self.scores(padded, mask)

    async def work(self):
        loop = asyncio.get_running_loop()
        while True:
            waiting = [await self.queue.get()]
            while len(waiting) < self.batch and not self.queue.empty():
                waiting.append(self.queue.get_nowait())
            found = await loop.run_in_executor(self.pool, self.run, [ids for ids, _ in waiting])
            for (_, future), score in zip(waiting, found):
                if not future.done():
                    future.set_result(float(score))

    async def score(self, prompt, response):
        ids = self.tokenizer.encode(prompt, response).ids
        future = asyncio.get_running_loop().create_future()
        await self.queue.put((ids, future))
        return await future


def application(batcher):
    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        score = await batcher.score(*json.loads(body)["inputs"])
        answer = json.dumps([{"score": score, "label": "LABEL_0"}]).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})
    return app


async def main():
    args = settings()
    batcher = Batcher(args)
    batcher.run([[101, 2054, 102]])
    worker = asyncio.create_task(batcher.work())
    config = uvicorn.Config(application(batcher), host="127.0.0.1", port=args.port, log_level="error", lifespan="off",
                            loop="none", http="httptools", access_log=False)
    threading.Timer(0.5, lambda: print("ready", flush=True)).start()
    await uvicorn.Server(config).serve()
    worker.cancel()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
