//! Linear weights packed for bf16 or int8 products: once per load when scoring, once per optimizer step when training.

use super::ops::LinearSpec;
use super::parameters::Span;
use super::tape::Storage;
use kernels::gemm::PackedWeight;

/// The arithmetic of the linear layers and of attention. Norms, softmax, sums, the residual stream and the head are f32
/// in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// bf16 operands, f32 sums.
    Bf16,
}

impl Precision {
    /// The fastest arithmetic this processor has for training.
    pub fn best() -> Self {
        if kernels::bf16::has_low_precision() { Precision::Bf16 } else { Precision::F32 }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        })
    }
}

/// Packed weights of a model's linear layers; none of them in f32, where weights are read in place.
#[derive(Clone, Debug, Default)]
pub struct Packed {
    layers: Vec<(LinearSpec, PackedWeight)>,
}

impl Packed {
    /// Packs `layers` of the flat parameter buffer; with `backward`, for training.
    pub fn new(layers: &[LinearSpec], values: &[f32], backward: bool) -> Self {
        let mut layers: Vec<_> = layers.iter().map(|spec| (*spec, PackedWeight::default())).collect();
        layers.sort_by_key(|(spec, _)| spec.weight.start);
        let mut packed = Self { layers };
        packed.refresh(values, backward);
        packed
    }

    /// Packs all layers again, after their weights have moved.
    pub fn refresh(&mut self, values: &[f32], backward: bool) {
        self.refresh_within(values, 0..values.len(), backward);
    }

    /// Packs the layers whose weight ends inside `range`: while it is still in the cache.
    pub fn refresh_within(&mut self, values: &[f32], range: std::ops::Range<usize>, backward: bool) {
        let start = self.layers.partition_point(|(spec, _)| spec.weight.range().end <= range.start);
        for (spec, weight) in &mut self.layers[start..] {
            if spec.weight.range().end > range.end {
                break;
            }
            weight.pack(&values[spec.weight.range()], spec.inputs, spec.outputs, backward);
        }
    }

    /// How values flow between the layers.
    pub fn storage(&self) -> Storage {
        if self.layers.is_empty() { Storage::F32 } else { Storage::Bf16 }
    }

    /// The layer whose weight this is.
    ///
    /// # Panics
    /// When the model pushed a layer on bf16 values that it did not list.
    pub(super) fn layer(&self, weight: Span) -> &PackedWeight {
        let index = self.layers.binary_search_by_key(&weight.start, |(spec, _)| spec.weight.start);
        &self.layers[index.expect("every layer on bf16 values is packed")].1
    }
}
