//! The keys and values of tokens that were already computed, for every layer and slot.
//!
//! A slot is one text that is being written. All memory is reserved at once; what no token has used takes none.

use super::tape::Storage;
use kernels::attention::cached::CacheShape;

/// Keys and values of one layer.
pub(super) enum Layer {
    F32([Vec<f32>; 2]),
    /// The bits of bf16 values: zeros of a plain integer take no memory before they are written.
    Bf16([Vec<u16>; 2]),
}

/// Keys and values of all layers.
pub struct KvCache {
    shape: CacheShape,
    slots: usize,
    layers: Vec<Layer>,
}

impl KvCache {
    /// A cache of `slots` texts with up to `shape.capacity` tokens each. A decoder makes its own, because it has to
    /// prepare its turns for that capacity.
    pub(crate) fn new(layers: usize, slots: usize, shape: CacheShape, storage: Storage) -> Self {
        let len = slots * shape.slot_len();
        let layer = |_| match storage {
            Storage::F32 => Layer::F32([vec![0.0; len], vec![0.0; len]]),
            Storage::Bf16 => Layer::Bf16([vec![0; len], vec![0; len]]),
        };
        Self { shape, slots, layers: (0..layers).map(layer).collect() }
    }

    /// Slots and sizes of a layer.
    pub fn shape(&self) -> (usize, CacheShape) {
        (self.slots, self.shape)
    }

    pub(super) fn layer(&mut self, layer: usize) -> &mut Layer {
        &mut self.layers[layer]
    }

    /// Gives slot `to` the first `tokens` tokens of slot `from`: responses to one prompt share its computation.
    ///
    /// # Panics
    /// When a slot does not exist or holds fewer tokens.
    pub fn copy(&mut self, from: usize, to: usize, tokens: usize) {
        let shape = self.shape;
        assert!(from.max(to) < self.slots, "slots {from} and {to} of {}", self.slots);
        assert!(tokens <= shape.capacity, "{tokens} tokens, a slot has {}", shape.capacity);
        for layer in &mut self.layers {
            match layer {
                Layer::F32(parts) => parts.iter_mut().for_each(|part| copy_slot(part, shape, from, to, tokens)),
                Layer::Bf16(parts) => parts.iter_mut().for_each(|part| copy_slot(part, shape, from, to, tokens)),
            }
        }
    }
}

fn copy_slot<T: Copy>(part: &mut [T], shape: CacheShape, from: usize, to: usize, tokens: usize) {
    let head_len = shape.capacity * shape.head_dim;
    for head in 0..shape.kv_heads {
        let at = |slot: usize| slot * shape.slot_len() + head * head_len;
        part.copy_within(at(from)..at(from) + tokens * shape.head_dim, at(to));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More tokens than a slot has would be those of the next head.
    #[test]
    #[should_panic(expected = "5 tokens, a slot has 4")]
    fn c10_a_copy_stays_within_its_slot() {
        let shape = CacheShape { heads: 2, kv_heads: 2, head_dim: 3, capacity: 4 };
        KvCache::new(1, 2, shape, Storage::F32).copy(0, 1, 5);
    }

    #[test]
    fn a_copied_slot_has_the_first_tokens_of_the_other() {
        let shape = CacheShape { heads: 2, kv_heads: 2, head_dim: 3, capacity: 4 };
        let mut part: Vec<usize> = (0..3 * shape.slot_len()).collect();
        copy_slot(&mut part, shape, 0, 2, 3);
        assert_eq!(part[48..57], [0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(part[57..60], [57, 58, 59], "the fourth token is not copied");
        assert_eq!(part[60..69], [12, 13, 14, 15, 16, 17, 18, 19, 20]);
    }
}
