"""The requests of trainers, with their retries and the places where they look for the number.

Written from the wire formats of OpenRLHF (`/get_reward`, several servers), verl (vLLM's `/classify` and SGLang's
`/v1/embeddings`), slime (`/reward`) and LLaMA-Factory (`/v1/score/evaluation`).
"""

import asyncio

import aiohttp


async def openrlhf(urls, query, prompt, label, headers):
    """One sample, sharded over the servers: all but the first get empty lists, and an error of any loses the reward."""
    size = -(-1 // len(urls))
    samples = {"query": [query], "prompts": [prompt], "labels": [label]}

    async def post(url, shard):
        for _ in range(5):
            try:
                async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=180), headers=headers) as session:
                    async with session.post(url, json=shard) as response:
                        response.raise_for_status()
                        return await response.json()
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)
        raise RuntimeError("no answer in 5 tries")

    shards = [{key: value[at * size:(at + 1) * size] for key, value in samples.items()} for at in range(len(urls))]
    results = await asyncio.gather(*(post(url, shard) for url, shard in zip(urls, shards)))
    return results[0]["rewards"], results


async def verl(address, engine, text, headers, activation="use_activation"):
    """One transcript in the chat template, as one request; a 4xx is final, anything else is tried again.

    `activation` is the name of vLLM's option: `use_activation` today, `activation` in versions up to early 2026.
    """
    payload = {"model": "/models/a-reward-model", "input": text}
    if engine == "vllm":
        path, payload = "classify", {**payload, activation: False}
    else:
        path = "v1/embeddings"
    for attempt in range(16):
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None), headers=headers) as session:
                async with session.post(f"{address}/{path}", json=payload) as response:
                    response.raise_for_status()
                    output = await response.json()
                    break
        except aiohttp.ClientResponseError as error:
            if 400 <= error.status < 500:
                raise
            await asyncio.sleep(min(0.05 * 2**attempt, 1))
    return output["data"][-1]["probs"][-1] if engine == "vllm" else output["data"][-1]["embedding"][-1]


async def slime(address, prompt, response, headers, key=None):
    """One sample a request; the whole answer is the reward, or one of its fields."""
    payload = {"prompt": prompt, "response": response, "label": None}
    url = f"{address}/reward?key={key}" if key else f"{address}/reward"
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.post(url, json=payload) as answer:
            answer.raise_for_status()
            reward = await answer.json()
    return reward[key] if key else reward


async def llama_factory(address, texts, headers):
    """Several transcripts."""
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.post(f"{address}/v1/score/evaluation", json={"model": "m", "messages": texts}) as answer:
            answer.raise_for_status()
            return (await answer.json())["scores"]
