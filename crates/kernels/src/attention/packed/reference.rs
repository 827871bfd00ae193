//! Plain twins of [`super::forward`] and [`super::backward`]: whole matrices of scores, in f64, without a tile, a family
//! or a log-sum-exp. They take queries, keys and values apart, and every text as rows of its own.

use super::{Mask, Queries, Spec};

/// Queries, keys and values of one text.
#[derive(Clone, Debug, Default)]
pub struct TextInputs {
    /// `[queries][heads·head_dim]`.
    pub q: Vec<Vec<f64>>,
    /// `[tokens][key_heads·head_dim]`.
    pub k: Vec<Vec<f64>>,
    /// `[tokens][key_heads·head_dim]`.
    pub v: Vec<Vec<f64>>,
    /// `[heads][2·reach − 1]`; empty is none.
    pub bias: Vec<Vec<f64>>,
}

/// The positions whose queries are computed in text number `sequence` of `tokens` tokens.
pub fn positions(queries: Queries, sequence: usize, tokens: usize) -> Vec<usize> {
    match queries {
        Queries::All => (0..tokens).collect(),
        Queries::First => (0..tokens.min(1)).collect(),
        Queries::Last => (tokens.saturating_sub(1)..tokens).collect(),
        Queries::At(at) => vec![at[sequence]],
    }
}

fn sees(mask: Mask, i: usize, j: usize) -> bool {
    match mask {
        Mask::Bidirectional => true,
        Mask::Causal => j <= i,
        Mask::Window { before, after } => i <= j + before && j <= i + after,
    }
}

/// One query of one head: its probabilities, and the slope of each score by its product.
fn probabilities(inputs: &TextInputs, spec: &Spec, head: usize, row: usize, position: usize) -> (Vec<f64>, Vec<f64>) {
    let (dim, key_head) = (spec.head_dim, head / (spec.heads / spec.key_heads));
    let product =
        |j: usize| -> f64 { (0..dim).map(|c| inputs.q[row][head * dim + c] * inputs.k[j][key_head * dim + c]).sum() };
    let mut slopes = vec![f64::from(spec.scale); inputs.k.len()];
    let mut scores = vec![f64::NEG_INFINITY; inputs.k.len()];
    for j in (0..inputs.k.len()).filter(|j| sees(spec.mask, position, *j)) {
        scores[j] = f64::from(spec.scale) * product(j);
        if let Some(cap) = spec.soft_cap.map(f64::from) {
            slopes[j] *= 1.0 - (scores[j] / cap).tanh().powi(2);
            scores[j] = cap * (scores[j] / cap).tanh();
        }
        if let Some(bias) = inputs.bias.get(head) {
            scores[j] += bias[j + bias.len() / 2 - position];
        }
    }
    let largest = scores.iter().fold(f64::NEG_INFINITY, |m, s| m.max(*s));
    let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
    let total: f64 = weights.iter().sum();
    (weights.iter().map(|w| w / total).collect(), slopes)
}

/// `[queries][heads·head_dim]` of text number `sequence`.
pub fn forward(inputs: &TextInputs, spec: &Spec, sequence: usize) -> Vec<Vec<f64>> {
    let (dim, shared) = (spec.head_dim, spec.heads / spec.key_heads);
    let positions = positions(spec.queries, sequence, inputs.k.len());
    let mut out = vec![vec![0.0; spec.heads * dim]; positions.len()];
    for (row, position) in positions.into_iter().enumerate() {
        for head in 0..spec.heads {
            let (weights, _) = probabilities(inputs, spec, head, row, position);
            for c in 0..dim {
                let values = inputs.v.iter().map(|v| v[head / shared * dim + c]);
                out[row][head * dim + c] = weights.iter().zip(values).map(|(w, v)| w * v).sum();
            }
        }
    }
    out
}

/// Gradients of all inputs of text number `sequence` from the saved `out` and its gradient `d_out`, both
/// `[queries][heads·head_dim]`, in the inputs' shape.
pub fn backward(inputs: &TextInputs, out: &[Vec<f64>], d_out: &[Vec<f64>], spec: &Spec, sequence: usize) -> TextInputs {
    let (dim, shared) = (spec.head_dim, spec.heads / spec.key_heads);
    let zeros = |rows: &[Vec<f64>]| rows.iter().map(|row| vec![0.0; row.len()]).collect::<Vec<_>>();
    let [mut q, mut k, mut v, mut bias] = [&inputs.q, &inputs.k, &inputs.v, &inputs.bias].map(|rows| zeros(rows));
    for (row, position) in positions(spec.queries, sequence, inputs.k.len()).into_iter().enumerate() {
        for head in 0..spec.heads {
            let (weights, slopes) = probabilities(inputs, spec, head, row, position);
            let (own, key) = (head * dim, head / shared * dim);
            let d_weight = |j: usize| -> f64 { (0..dim).map(|c| d_out[row][own + c] * inputs.v[j][key + c]).sum() };
            let mean: f64 = (own..own + dim).map(|c| d_out[row][c] * out[row][c]).sum();
            for (j, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
                let d_score = weight * (d_weight(j) - mean);
                if let Some(bias) = bias.get_mut(head) {
                    let middle = bias.len() / 2;
                    bias[j + middle - position] += d_score;
                }
                for c in 0..dim {
                    q[row][own + c] += d_score * slopes[j] * inputs.k[j][key + c];
                    k[j][key + c] += d_score * slopes[j] * inputs.q[row][own + c];
                    v[j][key + c] += weight * d_out[row][own + c];
                }
            }
        }
    }
    TextInputs { q, k, v, bias }
}
