"""Real clients against `kudos serve`; every number must be the one that `kudos score` prints.

    check_clients.py KUDOS_PROGRAM [JUDGE]

The server listens at a free port of this machine, wants a key, and is ended by its process id.
"""

import asyncio
import json
import math
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import cohere
import huggingface_hub
import numpy as np
import openai
import tritonclient.http as triton

import trainers

KUDOS, *JUDGE = sys.argv[1:]
KEY = "a-key-of-this-test-alone"
BEARER = {"authorization": f"Bearer {KEY}"}
PROMPT = "Why is the sky blue?"
RESPONSES = [
    "Because air scatters blue light more than red light.",
    "It is.",
    "",
    "Weil die Luft blaues Licht stärker streut. 🌤",
    "I think that " + "it is a matter of taste and of the light, " * 120,
]
PAIRS = [(PROMPT, response) for response in RESPONSES]
TRANSCRIPTS = [f"<|user|>\n{PROMPT}\n<|assistant|>\n{response}</s>" for response in RESPONSES]
passed = []


def check(name, found, expected):
    """Equal to the last bit."""
    if found != expected:
        sys.exit(f"FAILED  {name}\n  found    {found}\n  expected {expected}")
    passed.append(name)
    print(f"ok      {name}")


def kudos_score(texts):
    """Scores and whether each text was cut, from the program that has no server."""
    judge = ["--judge", JUDGE[0]] if JUDGE else []
    found = []
    for prompt, response in texts:
        asked = [*(["--prompt", prompt] if prompt is not None else []), "--response", response]
        printed = subprocess.run([KUDOS, "score", *judge, *asked, "--json", "--quiet"], capture_output=True, check=True)
        found.append(json.loads(printed.stdout))
    return [one["score"] for one in found], [one["truncated"] for one in found]


def sigmoid(score):
    return float(np.float32(1 / (1 + math.exp(-score))))


class Server:
    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        key = Path(self.folder.name) / "key"
        key.write_text(KEY + "\n")
        judge = ["--judge", JUDGE[0]] if JUDGE else []
        command = [KUDOS, "serve", *judge, "--port", "0", "--api-key-file", str(key), "--log", "off"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        self.url = line.split()[2].rstrip(":")
        self.judge = line.split()[3]
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=20)
        self.folder.cleanup()
        if status != 0:
            sys.exit(f"FAILED  the server ended with status {status}")


def post(url, body, headers=BEARER):
    """Without any client: the body and the headers of the answer."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json", **headers})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response), response.headers


def own_api(server, raw, cut):
    body, headers = post(f"{server.url}/v1/score", {"prompt": PROMPT, "responses": RESPONSES})
    check("own API: scores", [one["score"] for one in body["results"]], raw)
    check("own API: what was cut", [one["truncated"] for one in body["results"]], cut)
    check("own API: the count in the header", headers["x-kudos-truncated"], str(sum(cut)))
    body, _ = post(f"{server.url}/v1/best", {"prompt": PROMPT, "responses": RESPONSES})
    check("own API: the best", body["best"], raw.index(max(raw)))


def hugging_face(server, transcripts):
    client = huggingface_hub.InferenceClient(model=server.url, token=KEY)
    found = [client.text_classification(text, function_to_apply="none")[0] for text in TRANSCRIPTS]
    check("huggingface_hub: raw", [one.score for one in found], transcripts)
    check("huggingface_hub: default", client.text_classification(TRANSCRIPTS[0])[0].score, sigmoid(transcripts[0]))

    async def together():
        client = huggingface_hub.AsyncInferenceClient(model=server.url, token=KEY)
        asked = (client.text_classification(text, function_to_apply="none") for text in TRANSCRIPTS)
        return [one[0].score for one in await asyncio.gather(*asked)]

    check("huggingface_hub: async, at once", asyncio.run(together()), transcripts)
    stranger = huggingface_hub.InferenceClient(model=server.url, token="another-key-than-that")
    refused(huggingface_hub.errors.HfHubHTTPError, 401, lambda: stranger.text_classification("x"))


def refused(kind, status, call):
    try:
        call()
    except kind as error:
        found = getattr(error, "status_code", None) or error.response.status_code
        return check(f"{kind.__module__.split('.')[0]}: refused with {status}", found, status)
    sys.exit(f"FAILED  {kind} was not raised")


def cohere_clients(server, raw):
    expected = sorted(((sigmoid(score), -place) for place, score in enumerate(raw)), reverse=True)
    order = sorted(range(len(raw)), key=lambda place: -raw[place])
    first, client = (kind(api_key=KEY, base_url=server.url) for kind in (cohere.Client, cohere.ClientV2))
    for name, client in [("v1", first), ("v2", client)]:
        found = client.rerank(model="rerank-v3.5", query=PROMPT, documents=RESPONSES)
        check(f"cohere {name}: order", [one.index for one in found.results], order)
        check(f"cohere {name}: relevance", [one.relevance_score for one in found.results], [one[0] for one in expected])
        check(f"cohere {name}: version", found.meta.api_version.version, name[1])
        top = client.rerank(model="rerank-v3.5", query=PROMPT, documents=RESPONSES, top_n=2)
        check(f"cohere {name}: top 2", [one.index for one in top.results], order[:2])
    texts = [{"text": text} for text in RESPONSES]
    found = first.rerank(model="rerank-v3.5", query=PROMPT, documents=texts, return_documents=True)
    check("cohere v1: documents", [one.document.text for one in found.results], [RESPONSES[place] for place in order])
    stranger = cohere.ClientV2(api_key="another-key-than-that", base_url=server.url)
    refused(cohere.UnauthorizedError, 401, lambda: stranger.rerank(model="m", query="a", documents=["b"]))
    asked = {"model": "m", "query": "a", "documents": ["b"], "max_tokens_per_doc": 1}
    refused(cohere.BadRequestError, 400, lambda: client.rerank(**asked))


def openai_client(server, transcripts):
    client = openai.OpenAI(api_key=KEY, base_url=f"{server.url}/v1")
    check("openai: models", [model.id for model in client.models.list()], [server.judge])
    default = client.embeddings.create(model="m", input=TRANSCRIPTS)
    found = [np.float32(one.embedding[0]) for one in default.data]
    check("openai: embeddings as it asks for them", found, [np.float32(score) for score in transcripts])
    floats = client.embeddings.create(model="m", input=TRANSCRIPTS, encoding_format="float")
    check("openai: embeddings as floats", [one.embedding[-1] for one in floats.data], transcripts)
    stranger = openai.OpenAI(api_key="another-key-than-that", base_url=f"{server.url}/v1")
    refused(openai.AuthenticationError, 401, lambda: stranger.embeddings.create(model="m", input="x"))
    refused(openai.BadRequestError, 400, lambda: client.embeddings.create(model="m", input="x", dimensions=3))


def open_inference(server, raw, cut):
    client = triton.InferenceServerClient(server.url.removeprefix("http://"))
    check("tritonclient: live, ready", (client.is_server_live(), client.is_server_ready()), (True, True))
    check("tritonclient: model is ready", client.is_model_ready(server.judge, headers=BEARER), True)
    meta = client.get_model_metadata(server.judge, headers=BEARER)
    check("tritonclient: metadata", [one["name"] for one in meta["inputs"]], ["prompt", "response"])
    for is_binary in (True, False):
        inputs = []
        for name, texts in [("prompt", [PROMPT] * len(RESPONSES)), ("response", RESPONSES)]:
            tensor = triton.InferInput(name, [len(texts)], "BYTES")
            array = np.array([text.encode() for text in texts], dtype=np.object_)
            tensor.set_data_from_numpy(array, binary_data=is_binary)
            inputs.append(tensor)
        # The client adds to the headers that it is given.
        result = client.infer(server.judge, inputs, headers=dict(BEARER), request_id="7")
        kind = "binary" if is_binary else "JSON"
        check(f"tritonclient, {kind}: scores", list(result.as_numpy("score")), [np.float32(score) for score in raw])
        check(f"tritonclient, {kind}: what was cut", list(result.as_numpy("truncated")), cut)
    check("tritonclient: id", result.get_response()["id"], "7")


def http_dialects(server, raw, transcripts):
    tei, _ = post(f"{server.url}/predict", {"inputs": [[text] for text in TRANSCRIPTS], "raw_scores": True})
    check("text-embeddings-inference: predict", [one[0]["score"] for one in tei], transcripts)
    tei, headers = post(f"{server.url}/rerank", {"query": PROMPT, "texts": RESPONSES, "raw_scores": True})
    found = sorted((one["index"], one["score"]) for one in tei)
    check("text-embeddings-inference: rerank", found, list(enumerate(raw)))
    check("text-embeddings-inference: headers", headers["x-compute-characters"].isdigit(), True)
    vllm, _ = post(f"{server.url}/score", {"text_1": PROMPT, "text_2": RESPONSES, "use_activation": False})
    check("vLLM: score", [one["score"] for one in vllm["data"]], raw)
    vllm, _ = post(f"{server.url}/pooling", {"input": TRANSCRIPTS})
    check("vLLM: pooling", [one["data"][0] for one in vllm["data"]], transcripts)
    sglang, _ = post(f"{server.url}/classify", {"text": TRANSCRIPTS})
    check("SGLang: classify", [one["embedding"][0] for one in sglang], transcripts)
    infinity, _ = post(f"{server.url}/classify", {"input": TRANSCRIPTS, "raw_scores": True})
    check("infinity: classify", [one[0]["score"] for one in infinity["data"]], transcripts)
    kserve, _ = post(f"{server.url}/v1/models/{server.judge}:predict", {"instances": [list(pair) for pair in PAIRS]})
    check("KServe V1: predict", kserve["predictions"], raw)


async def trainer_clients(server, raw, transcripts):
    queries = [PROMPT + response for response in RESPONSES]
    for count in (1, 3):
        urls = [f"{server.url}/get_reward"] * count
        asked = (trainers.openrlhf(urls, query, PROMPT, "", BEARER) for query in queries)
        found = await asyncio.gather(*asked)
        check(f"OpenRLHF: {count} server(s)", [rewards for rewards, _ in found], [[score] for score in raw])
    check("OpenRLHF: the other servers", [one["rewards"] for one in found[0][1][1:]], [[], []])
    for engine in ("vllm", "sglang"):
        found = await asyncio.gather(*(trainers.verl(server.url, engine, text, BEARER) for text in TRANSCRIPTS))
        check(f"verl: {engine}", list(found), transcripts)
    older = await trainers.verl(server.url, "vllm", TRANSCRIPTS[0], BEARER, activation="activation")
    check("verl: vllm, older", older, transcripts[0])
    found = await asyncio.gather(*(trainers.slime(server.url, *pair, BEARER) for pair in PAIRS))
    check("slime: bare", list(found), raw)
    check("slime: at a key", await trainers.slime(server.url, *PAIRS[0], BEARER, key="score"), raw[0])
    check("LLaMA-Factory", await trainers.llama_factory(server.url, TRANSCRIPTS, BEARER), transcripts)


def without_key(server):
    for path in ("/v1/score", "/classify", "/rerank", "/get_reward", "/v1/embeddings", "/"):
        try:
            post(server.url + path, {}, headers={})
        except urllib.error.HTTPError as error:
            check(f"without a key: {path}", error.code, 401)
        else:
            sys.exit(f"FAILED  {path} answers without a key")


def main():
    raw, cut = kudos_score(PAIRS)
    transcripts, _ = kudos_score([(None, text) for text in TRANSCRIPTS])
    assert any(cut) and not all(cut), "one of the texts is to be cut"
    with Server() as server:
        own_api(server, raw, cut)
        http_dialects(server, raw, transcripts)
        hugging_face(server, transcripts)
        cohere_clients(server, raw)
        openai_client(server, transcripts)
        open_inference(server, raw, cut)
        asyncio.run(trainer_clients(server, raw, transcripts))
        without_key(server)
    print(f"all well: {len(passed)} comparisons")


main()
