//! The scalar functions of losses and metrics, in f64, finite over ±1e4.

/// log σ(x), without overflow or cancellation.
pub fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

/// σ(x).
pub fn sigmoid(x: f64) -> f64 {
    log_sigmoid(x).exp()
}

/// log Σ exp(xᵢ); −∞ for no values.
pub fn log_sum_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let max = values.clone().fold(f64::NEG_INFINITY, f64::max);
    if max.is_infinite() {
        return max;
    }
    max + values.map(|v| (v - max).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// torch.nn.functional.logsigmoid and torch.logsumexp in f64.
    #[test]
    fn values_are_pytorchs_and_the_edges_are_finite() {
        let cases = [(0.0, -std::f64::consts::LN_2), (1e4, 0.0), (-1e4, -1e4), (2.0, -0.126_928_011_042_972_5)];
        for (x, expected) in cases {
            assert!((log_sigmoid(x) - expected).abs() < 1e-15, "log_sigmoid({x}) = {}", log_sigmoid(x));
        }
        assert_eq!([sigmoid(1e4), sigmoid(-1e4), sigmoid(0.0)], [1.0, 0.0, 0.5]);
        let sum = log_sum_exp([1e4, 1e4].into_iter());
        assert!((sum - 1e4 - std::f64::consts::LN_2).abs() < 1e-9);
        assert!((log_sum_exp([-1e4, -1e4 + 1.0].into_iter()) + 1e4 - 1.313_261_687_518_222_8).abs() < 1e-9);
        assert_eq!(log_sum_exp(std::iter::empty()), f64::NEG_INFINITY);
    }
}
