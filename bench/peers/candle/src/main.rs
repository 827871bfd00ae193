//! candle's DistilBERT encoder on batches of one length: `candle-peer MODEL BATCHxLENGTH`.
//!
//! Loads, warms up, and measures once for each line `run` on standard input, as `score_peer.py` does. The head is
//! left out: it is a thousandth of the work.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::distilbert::{Config, DistilBertModel};
use std::io::BufRead;
use std::path::Path;
use std::time::Instant;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, shape] = arguments.as_slice() else { anyhow::bail!("usage: candle-peer MODEL BATCHxLENGTH") };
    let (batch, length) = shape.split_once('x').ok_or_else(|| anyhow::anyhow!("BATCHxLENGTH"))?;
    let (batch, length): (usize, usize) = (batch.parse()?, length.parse()?);
    let device = Device::Cpu;
    let config: Config = serde_json::from_slice(&std::fs::read(Path::new(dir).join("config.json"))?)?;
    let weights = std::fs::read(Path::new(dir).join("model.safetensors"))?;
    let weights = VarBuilder::from_buffered_safetensors(weights, DType::F32, &device)?;
    let model = DistilBertModel::load(weights, &config)?;
    let ids: Vec<u32> = (0..batch * length).map(|i| 1000 + (i as u32).wrapping_mul(2_654_435_761) % 20_000).collect();
    let ids = Tensor::from_vec(ids, (batch, length), &device)?;
    // In this port 1 marks what is hidden: all zeros hide nothing.
    let mask = Tensor::zeros((batch, 1, 1, length), DType::U8, &device)?;
    let run = || model.forward(&ids, &mask)?.to_device(&device);
    for _ in 0..3 {
        run()?;
    }
    for line in std::io::stdin().lock().lines() {
        if line?.trim() == "run" {
            let start = Instant::now();
            run()?;
            println!("{{\"ms\": {}}}", 1e3 * start.elapsed().as_secs_f64());
        }
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    println!("{{\"maxrss_kib\": {}}}", peak.trim().trim_end_matches(" kB"));
    Ok(())
}
