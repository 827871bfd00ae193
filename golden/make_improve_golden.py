"""Ten steps of `kudos improve` with PyTorch: golden/improve/NAME.safetensors and golden/improve/cases.json.

Fixed responses with fixed scores stand for what a policy would draw and a judge would say: two prompts a step, four
responses each. With A the advantage of a response, T the tokens of all responses and b the weight of the KL divergence,

    loss = sum over tokens (A * -ln p(token) + b * k3) / T,    k3 = r - 1 - ln r,    r = p_start(token) / p(token)

    A = (score - mean) / standard deviation of the group (over n - 1), 0 where all are equal     (rloo)
    A = 1 for the best response, else 0                                                          (best-of-n)

Logits are divided by the temperature. AdamW of PyTorch, without a clip. The checkpoints are those of
golden/decoders: tied and with biases, with a head of its own, with scaled words. Each text is run alone.

    python golden/make_improve_golden.py            write all again
    python golden/make_improve_golden.py --check    compare with what is committed, write nothing
"""

import argparse
import copy
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import tiny

HERE = Path(__file__).parent
OUT = HERE / "improve"
STEPS, PROMPTS, RESPONSES, RATE, TEMPERATURE = 10, 2, 4, 1e-3, 0.8
CASES = {
    "tied": {"model": "llama_tied_bias", "algorithm": "rloo", "kl": 0.05},
    "untied": {"model": "llama", "algorithm": "rloo", "kl": 0.0},
    "scaled": {"model": "gemma3_text", "algorithm": "rloo", "kl": 0.5},
    "best": {"model": "llama_tied_bias", "algorithm": "best-of-n", "kl": 0.0},
}


def groups(name):
    """For each step, prompts with their responses and scores. The scores of one group are equal."""
    random = tiny.generator(f"improve {name}")
    ids = lambda n: torch.randint(3, 120, (n,), generator=random).tolist()
    size = lambda low, high: int(torch.randint(low, high, (1,), generator=random))
    steps = []
    for step in range(STEPS):
        groups = []
        for prompt in range(PROMPTS):
            scores = [round(float(x), 3) for x in torch.randn(RESPONSES, generator=random)]
            if step == 3 and prompt == 1:
                scores = [0.25] * RESPONSES
            groups.append({"prompt": ids(size(1, 9)), "responses": [ids(size(1, 12)) for _ in scores], "scores": scores})
        steps.append(groups)
    return steps


def advantages(scores, algorithm):
    scores = torch.tensor(scores, dtype=torch.float64)
    if algorithm == "best-of-n":
        return (torch.arange(len(scores)) == scores.argmax()).double()
    return torch.zeros_like(scores) if (scores == scores[0]).all() else (scores - scores.mean()) / scores.std()


def log_probabilities(model, prompt, response):
    logits = model(input_ids=torch.tensor([prompt + response]), use_cache=False).logits[0, len(prompt) - 1:-1]
    return (logits / TEMPERATURE).log_softmax(-1).gather(-1, torch.tensor(response)[:, None])[:, 0]


def loss_of(model, start, groups, case):
    total = sum(len(response) for group in groups for response in group["responses"])
    loss, kl = 0.0, 0.0
    for group in groups:
        for response, advantage in zip(group["responses"], advantages(group["scores"], case["algorithm"])):
            own = log_probabilities(model, group["prompt"], response)
            with torch.no_grad():
                before = log_probabilities(start, group["prompt"], response)
            k3 = torch.exp(before - own) - 1 - (before - own)
            loss = loss + (float(advantage) * -own + case["kl"] * k3).sum() / total
            kl = kl + float(k3.detach().sum()) / total
    return loss, kl


def run(name, case):
    path = HERE / "decoders" / case["model"]
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
    start = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    steps, losses, kls, norms, tensors = groups(name), [], [], [], {}
    for step in steps:
        optimizer.zero_grad()
        loss, kl = loss_of(model, start, step, case)
        loss.backward()
        if not losses:
            tensors |= {f"grad.{key}": p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
        norms.append(float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])))
        optimizer.step()
        losses.append(float(loss.detach()))
        kls.append(kl)
    return tensors, {**case, "learning_rate": RATE, "temperature": TEMPERATURE, "losses": losses, "kl_found": kls,
                     "grad_norms": norms, "steps": steps}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    tiny.assert_pinned("torch", "transformers", "safetensors")
    tiny.deterministic()
    OUT.mkdir(exist_ok=True)
    cases = {}
    for name, case in CASES.items():
        tensors, cases[name] = run(name, case)
        if check:
            found = load_file(OUT / f"{name}.safetensors")
            assert found.keys() == tensors.keys() and all(torch.equal(found[key], tensors[key]) for key in found), name
        else:
            save_file(tensors, OUT / f"{name}.safetensors")
        print(name, len(tensors), [round(loss, 4) for loss in cases[name]["losses"]])
    text = json.dumps(cases) + "\n"
    if check:
        assert (OUT / "cases.json").read_text() == text
    else:
        (OUT / "cases.json").write_text(text)


if __name__ == "__main__":
    main()
