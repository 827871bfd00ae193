//! A golden of training: what a script computed before, during and after ten steps.
#![allow(dead_code, reason = "each test file uses a part of it")]

use crate::judges::texts;
use kudos::data::{Comparison, Location};
use kudos::text::Encoded;
use kudos::train::Example;
use safetensors::SafeTensors;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// `expected.json` and `expected.safetensors` of a directory.
pub struct Golden {
    /// Where it lies.
    pub dir: PathBuf,
    /// The one file.
    pub json: Value,
    bytes: Vec<u8>,
}

impl Golden {
    /// That of a directory.
    pub fn of(dir: &Path) -> Self {
        let read = |file: &str| std::fs::read(dir.join(file)).expect("a golden");
        let json = serde_json::from_slice(&read("expected.json")).expect("JSON");
        Self { json, bytes: read("expected.safetensors"), dir: dir.into() }
    }

    /// A tensor, if it has one of this name.
    pub fn tensor(&self, name: &str) -> Option<Vec<f32>> {
        let file = SafeTensors::deserialize(&self.bytes).expect("safetensors");
        let bytes = file.tensor(name).ok()?.data().to_vec();
        Some(bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect())
    }

    /// Its texts.
    pub fn texts(&self) -> Vec<Encoded> {
        texts(&self.json)
    }

    /// The pairs of the two steps, one after the other, each the indices of chosen and rejected.
    pub fn pairs(&self) -> Vec<[usize; 2]> {
        let pairs: [Vec<[usize; 2]>; 2] = serde_json::from_value(self.json["pairs"].clone()).unwrap();
        pairs.concat()
    }

    /// Numbers of the ten steps.
    pub fn numbers(&self, key: &str) -> Vec<f64> {
        serde_json::from_value(self.json["adamw"][key].clone()).unwrap()
    }

    /// Whether the gradient of this element is rounding alone.
    pub fn is_noise(&self, name: &str, at: usize) -> bool {
        match &self.json["noise"][name] {
            Value::String(_) => true,
            Value::Array(places) => places.iter().any(|place| place.as_u64() == Some(at as u64)),
            _ => false,
        }
    }
}

/// A group of two of the texts, the first of which is better.
pub fn example(texts: &[Encoded], [chosen, rejected]: [usize; 2], line: u64) -> Example {
    let comparison = Comparison { first: 0, second: 1, target: 1.0, margin: 0.0, weight: 1.0 };
    Example {
        sequences: vec![texts[chosen].clone(), texts[rejected].clone()],
        comparisons: vec![comparison],
        ranks: vec![None; 2],
        ratings: Vec::new(),
        prompt: line.to_string(),
        location: Location { file: "golden".into(), line },
    }
}
