//! Mistral (Jiang et al. 2023): Llama's wiring, with a window in all layers where the config names one.

use super::config::{ConfigError, Fields, limit};
use super::decoder_config::{Biases, DecoderConfig};
use super::llama;
use serde_json::Value;

pub(super) fn config(fields: &Fields) -> Result<DecoderConfig, ConfigError> {
    let mut config = llama::config(fields)?;
    config.biases = Biases::default();
    // A missing key means 4096 to transformers, null no window.
    let window = match fields.json.get("sliding_window") {
        Some(Value::Null) => None,
        _ => Some(fields.size_or("sliding_window", limit::ROWS, Some(4096))?),
    };
    config.kinds.iter_mut().for_each(|kind| kind.window = window);
    Ok(config)
}
