"""Rerankers and evaluators: sentence-transformers, LangChain, LlamaIndex, Inspect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest
import sentence_transformers
import torch
from inspect_ai import Task
from inspect_ai import eval as inspect_eval
from inspect_ai.dataset import Sample
from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    Model,
    ModelOutput,
    ModelUsage,
    get_model,
)
from inspect_ai.solver import generate, system_message
from langchain_classic.retrievers.document_compressors import CrossEncoderReranker
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode

import kudos
from kudos.integrations.inspect_ai import judge_score
from kudos.integrations.langchain import JudgeCrossEncoder
from kudos.integrations.llama_index import JudgeRerank
from kudos.integrations.sentence_transformers import CrossEncoder

from conftest import ANSWERS, PROMPTS

#: Without empty answers: transformers writes those in two ways, and a batch has one `[SEP]` more than a lone pair.
PAIRS = [(prompt, answer) for prompt in PROMPTS for answer in ANSWERS if answer]


@pytest.fixture(scope="module")
def theirs(trained: Path) -> Any:
    return sentence_transformers.CrossEncoder(str(trained), device="cpu")


@pytest.fixture(scope="module")
def ours(trained: Path) -> CrossEncoder:
    return CrossEncoder(kudos.RewardModel.from_pretrained(trained, precision="f32"))


def test_their_cross_encoder_gives_our_raw_scores(trained: Path, theirs: Any, ours: CrossEncoder) -> None:
    config = json.loads((trained / "config.json").read_text())
    assert config["sentence_transformers"] == {"activation_fn": "torch.nn.modules.linear.Identity"}
    assert isinstance(theirs.activation_fn, torch.nn.Identity)
    numpy.testing.assert_allclose(theirs.predict(PAIRS), ours.predict(PAIRS), rtol=0, atol=2e-5)


def test_results_have_their_kinds(theirs: Any, ours: CrossEncoder) -> None:
    for inputs in (PAIRS, PAIRS[0], list(PAIRS[0]), PAIRS[:2], [list(pair) for pair in PAIRS[:2]]):
        for settings in ({}, {"convert_to_tensor": True}, {"convert_to_numpy": False}, {"batch_size": 2}):
            expected, found = theirs.predict(inputs, **settings), ours.predict(inputs, **settings)
            assert type(found) is type(expected), (inputs, settings)
            assert numpy.shape(found) == numpy.shape(expected)
            assert getattr(found, "dtype", None) == getattr(expected, "dtype", None)
    activated = ours.predict(PAIRS, activation_fn=torch.nn.Sigmoid())
    numpy.testing.assert_allclose(activated, theirs.predict(PAIRS, activation_fn=torch.nn.Sigmoid()), atol=2e-5)
    assert len(ours.predict([])) == 0


def test_rank_gives_their_dictionaries(theirs: Any, ours: CrossEncoder) -> None:
    for settings in ({}, {"top_k": 2}, {"return_documents": True}, {"top_k": 9, "return_documents": True}):
        expected, found = theirs.rank(PROMPTS[0], ANSWERS, **settings), ours.rank(PROMPTS[0], ANSWERS, **settings)
        assert [list(one) for one in found] == [list(one) for one in expected]
        assert [one["corpus_id"] for one in found] == [one["corpus_id"] for one in expected]
        assert [type(one["score"]) for one in found] == [float] * len(found)


def test_arguments_that_would_change_scores_are_refused(ours: CrossEncoder) -> None:
    with pytest.raises(kudos.KudosError, match="prompt='query: '"):
        ours.predict(PAIRS, prompt="query: ")
    with pytest.raises(kudos.KudosError, match="batchsize=3"):
        ours.rank(PROMPTS[0], ANSWERS, batchsize=3)


@pytest.mark.parametrize("second", [("p", None), ("p", 7), ("p",), "pr", ("p", "r", "s")])
def test_what_is_no_pair_of_texts_is_named(second: Any, ours: CrossEncoder, judge: kudos.RewardModel) -> None:
    for function in (ours.predict, JudgeCrossEncoder(judge).score):
        with pytest.raises(kudos.DataError) as caught:
            function([("p", "r"), second])
        assert caught.value.row == 1


def test_langchain_reranks(judge: kudos.RewardModel, url: str) -> None:
    documents = [Document(answer, metadata={"id": place}) for place, answer in enumerate(ANSWERS)]
    expected = [ranked.index for ranked in judge.rank(PROMPTS[0], ANSWERS)[:2]]
    for place in (judge, url):
        reranker = CrossEncoderReranker(model=JudgeCrossEncoder(place), top_n=2)
        assert [one.metadata["id"] for one in reranker.compress_documents(documents, PROMPTS[0])] == expected
        assert list(reranker.compress_documents([], PROMPTS[0])) == []


def test_llama_index_reranks(judge: kudos.RewardModel, url: str) -> None:
    expected = judge.rank(PROMPTS[0], ANSWERS)[:3]
    for place in (judge, url):
        nodes = [NodeWithScore(node=TextNode(text=answer, metadata={"from": "a"}), score=0.5) for answer in ANSWERS]
        rerank = JudgeRerank(place, top_n=3, keep_retrieval_score=True)
        found = rerank.postprocess_nodes(nodes, query_str=PROMPTS[0])
        assert [(one.node.get_content(), one.score) for one in found] == [(r.response, r.score) for r in expected]
        assert found[0].node.metadata["retrieval_score"] == 0.5
        assert rerank.postprocess_nodes([], query_str=PROMPTS[0]) == []
        assert rerank.to_dict()["judge"] == "trained"
        with pytest.raises(kudos.DataError, match="expected a query"):
            rerank.postprocess_nodes(nodes)


def answering(answers: list[str]) -> Model:
    """A model that gives these answers; counting its tokens would need the network."""
    outputs = [ModelOutput.from_content("mockllm", answer) for answer in answers]
    for output in outputs:
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    return get_model("mockllm/model", custom_outputs=outputs)


def test_inspect_scores_what_the_model_answered(judge: kudos.RewardModel, trained: Path, tmp_path: Path) -> None:
    conversation = [
        ChatMessageUser(content=PROMPTS[0]),
        ChatMessageAssistant(content="Why do you ask?"),
        ChatMessageUser(content="I look up a lot."),
    ]
    samples = [Sample(input=PROMPTS[0]), Sample(input=PROMPTS[1]), Sample(input=list(conversation))]
    answers = [ANSWERS[0], "", ANSWERS[2]]
    model = answering(answers)
    task = Task(dataset=samples, solver=[generate()], scorer=judge_score(str(trained)))
    log = inspect_eval(task, model=model, log_dir=str(tmp_path), display="none", max_samples=1)[0]
    assert log.status == "success", log.error
    messages = [{"role": one.role, "content": one.text} for one in conversation]
    prompts: list[Any] = [PROMPTS[0], PROMPTS[1], messages]
    expected = judge.score(prompts, answers).tolist()
    assert log.samples is not None and log.results is not None
    assert [sample.scores["judge_score"].value for sample in log.samples if sample.scores] == expected
    assert log.results.scores[0].metrics["mean"].value == pytest.approx(numpy.mean(expected))


def test_inspect_shows_the_judge_system_messages_that_the_model_saw(
    judge: kudos.RewardModel, trained: Path, tmp_path: Path
) -> None:
    model = answering([ANSWERS[0]])
    task = Task(
        dataset=[Sample(input=PROMPTS[0])],
        solver=[system_message("Be kind."), generate()],
        scorer=judge_score(str(trained)),
    )
    log = inspect_eval(task, model=model, log_dir=str(tmp_path), display="none")[0]
    seen = [ChatMessageSystem(content="Be kind."), ChatMessageUser(content=PROMPTS[0])]
    messages = [{"role": one.role, "content": one.text} for one in seen]
    assert log.samples and log.samples[0].scores
    assert log.samples[0].scores["judge_score"].value == float(judge.score([messages], [ANSWERS[0]])[0])
