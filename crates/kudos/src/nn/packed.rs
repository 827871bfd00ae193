//! Linear weights packed for bf16 or int8 products: once per load when scoring, once per optimizer step when training.

use super::ops::LinearSpec;
use super::parameters::Span;
use super::tape::Storage;
use kernels::bf16::Bf16;
use kernels::gemm::{Int8Weight, NarrowWeight, PackedWeight, Width, quantize_weights};

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
    /// Scoring only: linear layers on 8-bit weights (a scale per output) and 8-bit activations (a scale per token);
    /// attention as in bf16 where the processor has that, else as in f32.
    Int8,
}

impl Precision {
    /// The fastest arithmetic this processor has for training, and for scoring where int8 is not asked for.
    pub fn best() -> Self {
        if kernels::bf16_is_faster() { Precision::Bf16 } else { Precision::F32 }
    }

    /// Whether this processor has the products that an encoder needs in this precision.
    pub fn runs_here(self) -> bool {
        match self {
            Precision::F32 => true,
            Precision::Bf16 => kernels::has_bf16_products(),
            Precision::Int8 => kernels::has_int8_products(),
        }
    }

    /// What of a processor it needs.
    pub fn processor(self) -> &'static str {
        match self {
            Precision::F32 => "any processor",
            Precision::Bf16 => "a processor with AVX-512 BF16",
            Precision::Int8 => "a processor with AVX2",
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::Int8 => "int8",
        })
    }
}

/// A packed linear weight.
#[derive(Clone, Debug)]
pub enum PackedLayer {
    /// For bf16 products.
    Bf16(PackedWeight),
    /// For int8 products.
    Int8(Int8Weight),
    /// For f32 products on weights kept in fewer bits.
    Narrow(NarrowWeight),
}

impl PackedLayer {
    /// How the values that it reads and writes are stored.
    fn storage(&self) -> Storage {
        match self {
            PackedLayer::Int8(_) if !Precision::Bf16.runs_here() => Storage::F32,
            PackedLayer::Bf16(_) | PackedLayer::Int8(_) => Storage::Bf16,
            PackedLayer::Narrow(_) => Storage::F32,
        }
    }

    /// A decoder's weight, kept as the precision says.
    pub fn for_decoding(weight: &[f32], inputs: usize, outputs: usize, precision: Precision) -> Self {
        let width = match precision {
            Precision::F32 => Width::F32,
            Precision::Bf16 => Width::Bf16,
            Precision::Int8 => Width::Int8,
        };
        PackedLayer::Narrow(NarrowWeight::pack(weight, inputs, outputs, width))
    }

    /// A weight that is not trained, while what is before it is: kept in bf16 for bf16 products, or in 8 bits for those of
    /// f32, and in both directions.
    pub fn frozen(weight: &[f32], spec: &LinearSpec, precision: Precision) -> Self {
        match precision {
            Precision::F32 => unreachable!("f32 weights are read in place"),
            Precision::Bf16 => {
                let mut packed = PackedWeight::default();
                packed.pack(weight, spec.inputs, spec.outputs, true);
                PackedLayer::Bf16(packed)
            }
            Precision::Int8 => Self::for_decoding(weight, spec.inputs, spec.outputs, precision),
        }
    }

    /// Packs `weight: [outputs, inputs]` for scoring in `precision`, which is not f32.
    pub fn for_scoring(weight: &[f32], spec: &LinearSpec, precision: Precision) -> Self {
        match precision {
            Precision::F32 => unreachable!("f32 weights are read in place"),
            Precision::Bf16 => {
                let mut packed = PackedWeight::default();
                packed.pack(weight, spec.inputs, spec.outputs, false);
                PackedLayer::Bf16(packed)
            }
            Precision::Int8 => {
                let (units, scales) = quantize_weights(weight, spec.inputs);
                PackedLayer::Int8(Int8Weight::new(&units, scales, spec.inputs))
            }
        }
    }
}

/// Packed weights of a model's linear layers; none of them in f32, where weights are read in place.
#[derive(Clone, Debug, Default)]
pub struct Packed {
    /// How values flow between the layers: all of them read and write values of one kind.
    storage: Storage,
    layers: Vec<(LinearSpec, PackedLayer)>,
    /// A table of words in bf16, whose rows are widened as they are read.
    words: Option<(Span, Vec<Bf16>)>,
}

impl Packed {
    /// For training in bf16: `layers` of the flat parameter buffer.
    pub fn for_training(layers: &[LinearSpec], values: &[f32]) -> Self {
        let mut packed =
            Self::new(layers.iter().map(|spec| (*spec, PackedLayer::Bf16(PackedWeight::default()))).collect());
        packed.refresh(values);
        packed
    }

    /// Layers that were packed one by one. Narrow ones beside bf16 ones are tables and heads, which know f32 values alone.
    ///
    /// # Panics
    /// When of the others some read f32 values and some bf16 ones.
    pub fn new(mut layers: Vec<(LinearSpec, PackedLayer)>) -> Self {
        layers.sort_by_key(|(spec, _)| spec.weight.start);
        let mut kinds = layers.iter().filter(|(_, layer)| !matches!(layer, PackedLayer::Narrow(_)));
        let storage = kinds.next().map_or(Storage::F32, |(_, layer)| layer.storage());
        assert!(kinds.all(|(_, layer)| layer.storage() == storage), "all layers read values of one kind");
        Self { storage, layers, words: None }
    }

    /// The same with a table of words, which has no place in the flat buffer.
    pub fn with_words(self, span: Span, rows: Vec<Bf16>) -> Self {
        Self { words: Some((span, rows)), ..self }
    }

    /// The table of words, if it is this one and is kept in bf16.
    pub(super) fn words(&self, words: Span) -> Option<&[Bf16]> {
        self.words.as_ref().filter(|(span, _)| *span == words).map(|(_, rows)| rows.as_slice())
    }

    /// Packs all layers again, after their weights have moved.
    pub fn refresh(&mut self, values: &[f32]) {
        self.refresh_within(values, 0..values.len());
    }

    /// Packs the layers whose weight ends inside `range`: while it is still in the cache.
    pub fn refresh_within(&mut self, values: &[f32], range: std::ops::Range<usize>) {
        let start = self.layers.partition_point(|(spec, _)| spec.weight.range().end <= range.start);
        for (spec, layer) in &mut self.layers[start..] {
            if spec.weight.range().end > range.end {
                break;
            }
            match layer {
                PackedLayer::Bf16(weight) => {
                    weight.pack(&values[spec.weight.range()], spec.inputs, spec.outputs, true);
                }
                PackedLayer::Int8(_) | PackedLayer::Narrow(_) => unreachable!("for scoring only"),
            }
        }
    }

    /// Bytes of all packed weights, but for scales.
    pub fn bytes(&self) -> usize {
        let each = |(spec, layer): &(LinearSpec, PackedLayer)| {
            let width = match layer {
                PackedLayer::Bf16(weight) if weight.has_backward() => 4, // In both orientations.
                PackedLayer::Bf16(_) => 2,
                PackedLayer::Int8(_) => 1,
                PackedLayer::Narrow(weight) => match weight.width() {
                    Width::F32 => 4,
                    Width::Bf16 => 2,
                    Width::Int8 => 1,
                },
            };
            width * spec.inputs * spec.outputs
        };
        let words = self.words.as_ref().map_or(0, |(_, rows)| size_of_val(rows.as_slice()));
        words + self.layers.iter().map(each).sum::<usize>()
    }

    /// True when all matrices are read in place.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// In how many bits the weights are kept.
    pub fn precision(&self) -> Precision {
        match self.layers.first() {
            None => Precision::F32,
            Some((_, PackedLayer::Bf16(_))) => Precision::Bf16,
            Some((_, PackedLayer::Int8(_))) => Precision::Int8,
            Some((_, PackedLayer::Narrow(weight))) => match weight.width() {
                Width::F32 => Precision::F32,
                Width::Bf16 => Precision::Bf16,
                Width::Int8 => Precision::Int8,
            },
        }
    }

    /// How values flow between the layers.
    pub fn storage(&self) -> Storage {
        self.storage
    }

    /// Whether a backward pass can run on these layers.
    pub(super) fn is_trainable(&self) -> bool {
        self.layers.iter().all(|(_, layer)| match layer {
            PackedLayer::Bf16(weight) => weight.has_backward(),
            PackedLayer::Narrow(_) => true,
            PackedLayer::Int8(_) => false,
        })
    }

    /// The layer whose weight this is, if it is packed.
    pub(super) fn find(&self, weight: Span) -> Option<&PackedLayer> {
        let index = self.layers.binary_search_by_key(&weight.start, |(spec, _)| spec.weight.start).ok()?;
        Some(&self.layers[index].1)
    }

    /// The narrow weight that is multiplied in f32, if this one is.
    pub(super) fn narrow(&self, weight: Span) -> Option<&NarrowWeight> {
        match self.find(weight) {
            Some(PackedLayer::Narrow(weight)) => Some(weight),
            _ => None,
        }
    }

    /// The layer whose weight this is.
    ///
    /// # Panics
    /// When the model pushed a layer on bf16 values that it did not list.
    pub(super) fn layer(&self, weight: Span) -> &PackedLayer {
        self.find(weight).expect("every layer on bf16 values is packed")
    }

    /// The layer whose weight this is, when training.
    ///
    /// # Panics
    /// As [`Self::layer`], and for int8.
    pub(super) fn trained(&self, weight: Span) -> &PackedWeight {
        match self.layer(weight) {
            PackedLayer::Bf16(weight) => weight,
            PackedLayer::Int8(_) | PackedLayer::Narrow(_) => unreachable!("for scoring only"),
        }
    }
}
