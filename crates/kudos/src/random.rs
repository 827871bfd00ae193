//! Random numbers by counting: the n-th number of a stream is a function of (seed, stream, n), so
//! nothing has to be stored to resume and no thread can change them.

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Stream {
    key: u64,
    counter: u64,
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Stream {
    /// Stream number `stream` of a seed.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self { key: mix(mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15)).wrapping_add(stream)), counter: 0 }
    }

    /// The stream that belongs to a name (FNV-1a of its bytes).
    pub fn named(seed: u64, name: &str) -> Self {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        Self::new(seed, hash)
    }

    /// Another stream, number `stream` below this one.
    pub fn fork(&self, stream: u64) -> Self {
        Self::new(self.key, stream)
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.counter += 1;
        mix(self.key.wrapping_add(self.counter.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// The bits that a fresh copy of this stream gives after `n` others.
    pub fn bits_at(&self, n: u64) -> u64 {
        mix(self.key.wrapping_add((n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// Uniform in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in `0..n`, without bias.
    ///
    /// # Panics
    /// When `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        let n = n as u64;
        let zone = u64::MAX - u64::MAX % n;
        loop {
            let bits = self.bits();
            if bits < zone {
                return (bits % n) as usize;
            }
        }
    }

    /// Standard normal (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Puts `items` in random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_right_and_streams_differ() {
        let mut stream = Stream::new(42, 0);
        let draws: Vec<f64> = (0..200_000).map(|_| stream.normal()).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
        assert_ne!(Stream::new(42, 0).bits(), Stream::new(42, 1).bits());
        assert_eq!(Stream::named(1, "a").bits(), Stream::named(1, "a").bits());
        let mut stream = Stream::new(7, 3);
        let all = stream.clone();
        assert!((0..9).all(|n| all.bits_at(n) == stream.bits()));
    }

    #[test]
    fn shuffle_reaches_every_order() {
        let mut seen = std::collections::HashMap::new();
        for seed in 0..6000 {
            let mut items = [0, 1, 2];
            Stream::new(seed, 0).shuffle(&mut items);
            *seen.entry(items).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 6);
        assert!(seen.values().all(|n| (800..1200).contains(n)), "{seen:?}");
    }
}
