"""A judge behind `kudos serve` as a reward function of TRL's GRPOTrainer or RLOOTrainer.

    from trl_reward import kudos_reward
    trainer = GRPOTrainer(..., reward_funcs=kudos_reward("http://127.0.0.1:8080"))

Needs the standard library alone. Plain and chat completions both work. A completion that the judge could not score is
`None`, which TRL leaves out of the reward; it is never 0. A busy server is asked again after the time that it names.
"""

import json
import time
import urllib.error
import urllib.request


def kudos_reward(url, judge=None, key=None, tries=8, timeout=300):
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})

    def ask(body):
        request = urllib.request.Request(f"{url.rstrip('/')}/v1/score", json.dumps(body).encode(), headers)
        for _ in range(tries):
            try:
                with urllib.request.urlopen(request, timeout=timeout) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as fault:
                if fault.code not in (429, 503):
                    raise RuntimeError(f"{url} answered {fault.code}: {fault.read().decode()}") from None
                time.sleep(float(fault.headers.get("retry-after") or 1))
        raise RuntimeError(f"{url} was busy {tries} times in a row")

    def kudos(prompts, completions, log_metric=None, **columns):
        pairs = [{"prompt": prompt, "response": completion} for prompt, completion in zip(prompts, completions)]
        results = ask({"pairs": pairs} | ({"judge": judge} if judge else {}))["results"]
        if log_metric:
            log_metric("kudos/truncated", sum(bool(r.get("truncated")) for r in results) / max(len(results), 1))
        return [result.get("score") for result in results]

    return kudos
