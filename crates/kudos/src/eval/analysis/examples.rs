//! What to read: the scores of a few prompts, the hardest mistakes, labels that look wrong.

/// One response of a prompt, as a bar.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Bar {
    /// Excerpt of the response.
    pub text: String,
    /// The judge's score.
    pub score: f64,
    /// Its place in people's order (1 is best), where the data say one.
    pub rank: Option<f64>,
    /// Its place in the judge's order, 1 for the highest score; equal scores share their mean place.
    pub judge_rank: f64,
}

/// The responses of one prompt, in the order of the file.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct PromptBars {
    /// Excerpt of the prompt; `None` when the responses are whole transcripts.
    pub prompt: Option<String>,
    /// `file:line`.
    pub location: String,
    /// The responses.
    pub responses: Vec<Bar>,
}

/// One pair as the judge sees it. Excerpts are at most 600 characters, the last one `…` if cut.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct JudgedPair {
    /// Index of its group among the groups given.
    pub group: usize,
    /// Index in the group of the response that people prefer.
    pub better_response: usize,
    /// Index in the group of the other one.
    pub worse_response: usize,
    /// `file:line`.
    pub location: String,
    /// The column `subset`, if any.
    pub subset: Option<String>,
    /// Excerpt of the prompt; `None` when the responses are whole transcripts.
    pub prompt: Option<String>,
    /// Excerpt of the response that people prefer.
    pub better: String,
    /// Excerpt of the other one.
    pub worse: String,
    /// Score of the better one less score of the worse one: negative is a mistake.
    pub margin: f64,
    /// Probability that the judge gives to the label: σ(margin / temperature).
    pub probability: f64,
}
