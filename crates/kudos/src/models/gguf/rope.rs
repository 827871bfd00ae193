//! Rotary embeddings of a GGUF file → `rope_theta`, `partial_rotary_factor` and `rope_scaling`.
//!
//! Linear and YaRN scaling are settings. Llama 3's is not: its converter computes by how much each frequency is
//! divided and stores that as the tensor `rope_freqs.weight`. The four numbers of `config.json` it came from are
//! found again here: the divisors are made from the published numbers and compared.

use super::config::Settings;
use super::{GgufModelError, bad_shape};
use serde_json::{Map, Value, json};
use std::f64::consts::TAU;

/// What llama.cpp takes where the file says nothing.
const THETA: f64 = 10_000.0;
const DIVISORS: &str = "rope_freqs.weight";

/// The keys that describe the rotary embedding of heads of `head_size`.
pub(super) fn config(settings: &Settings, head_size: u64) -> Result<Map<String, Value>, GgufModelError> {
    let theta = settings.float("rope.freq_base")?.unwrap_or(THETA);
    let mut config = Map::new();
    config.insert("rope_theta".into(), json!(theta));
    let turned = settings.whole("rope.dimension_count")?.unwrap_or(head_size);
    if turned == 0 || turned > head_size || !turned.is_multiple_of(2) {
        return Err(settings.error("rope.dimension_count", format!("an even number up to the head's {head_size}")));
    }
    if turned != head_size {
        config.insert("partial_rotary_factor".into(), json!(turned as f64 / head_size as f64));
    }
    let scaling = match settings.gguf.tensors.contains_key(DIVISORS) {
        true => llama3(settings, theta)?,
        false => declared(settings)?,
    };
    config.extend(scaling.map(|scaling| ("rope_scaling".into(), scaling)));
    Ok(config)
}

/// Scaling that the settings state.
fn declared(settings: &Settings) -> Result<Option<Value>, GgufModelError> {
    let old = settings.float("rope.scale_linear")?.filter(|factor| *factor != 1.0);
    let factor = settings.float("rope.scaling.factor")?.or(old);
    let kind = settings.text("rope.scaling.type")?.or(old.map(|_| "linear")).unwrap_or("none");
    let Some(factor) = factor.filter(|factor| *factor != 0.0 && kind != "none") else {
        return Ok(None);
    };
    let mut scaling = Map::from_iter([("rope_type".into(), json!(kind)), ("factor".into(), json!(factor))]);
    match kind {
        "linear" => {}
        "yarn" => {
            let context = settings.whole("rope.scaling.original_context_length")?;
            let context = context.map(|context| ("original_max_position_embeddings".into(), json!(context)));
            scaling.extend(context);
            let attention = settings.float("rope.scaling.attn_factor")?;
            scaling.extend(attention.map(|factor| ("attention_factor".into(), json!(factor))));
        }
        _ => return Err(settings.error("rope.scaling.type", "none, linear or yarn")),
    }
    Ok(Some(Value::Object(scaling)))
}

/// Frequencies below the first are divided by the factor, those above the second are left alone; in between, both.
const LOW: f64 = 1.0;
const HIGH: f64 = 4.0;

/// Llama 3's scaling, from the divisors that were made of it.
fn llama3(settings: &Settings, theta: f64) -> Result<Option<Value>, GgufModelError> {
    let gguf = settings.gguf;
    let mut divisors = vec![0.0; gguf.tensor(DIVISORS)?.len().min(1 << 16)];
    gguf.read(DIVISORS, &mut divisors)?;
    let factor = f64::from(divisors.iter().copied().fold(1.0, f32::max));
    if factor == 1.0 {
        return Ok(None);
    }
    let fits = |context: &u64| {
        let made = (0..divisors.len()).map(|at| divisor(theta, at, divisors.len(), factor, *context as f64));
        made.zip(&divisors).all(|(made, stored)| (made / f64::from(*stored) - 1.0).abs() < 1e-4)
    };
    let context = (10..=20).map(|power| 1u64 << power).find(fits);
    let unknown = || bad_shape(gguf, DIVISORS, "its values are not those of Llama 3's scaling".into());
    let context = context.ok_or_else(unknown)?;
    Ok(Some(json!({
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": LOW,
        "high_freq_factor": HIGH,
        "original_max_position_embeddings": context,
    })))
}

/// By how much Llama 3 divides frequency `at` of `count`.
fn divisor(theta: f64, at: usize, count: usize, factor: f64, context: f64) -> f64 {
    let turns = context / (TAU * theta.powf(at as f64 / count as f64));
    if turns > HIGH {
        1.0
    } else if turns < LOW {
        factor
    } else {
        let share = (turns - LOW) / (HIGH - LOW);
        1.0 / ((1.0 - share) / factor + share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divisors_go_from_one_to_the_factor() {
        let made: Vec<f64> = (0..64).map(|at| divisor(500_000.0, at, 64, 8.0, 8192.0)).collect();
        assert_eq!((made[0], made[63]), (1.0, 8.0));
        assert!(made.windows(2).all(|pair| pair[0] <= pair[1]));
        assert!(made.iter().any(|divisor| *divisor > 1.0 && *divisor < 8.0));
    }
}
