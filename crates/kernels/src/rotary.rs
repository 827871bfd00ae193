//! Rotary position embedding (Su et al. 2021, RoFormer), in the layout of transformers: a head's first half is turned
//! against its second half. A partial one turns the first columns of a head and leaves the rest.

/// Cosines and sines of every position's angles.
#[derive(Clone, Debug, Default)]
pub struct RotaryTable {
    /// Pairs of columns that are turned.
    half: usize,
    /// `[positions][cosines of half, sines of half]`.
    turns: Vec<f32>,
}

impl RotaryTable {
    /// The table of `positions` positions: pair `i` turns by position · `frequencies[i]`; both results are multiplied with
    /// `factor` (1 unless a scaling says otherwise).
    pub fn new(frequencies: &[f32], factor: f32, positions: usize) -> Self {
        let half = frequencies.len();
        let mut turns = Vec::with_capacity(2 * half * positions);
        for position in 0..positions {
            // The angle is rounded to f32, as the models were trained with.
            let angles = frequencies.iter().map(|frequency| f64::from(position as f32 * frequency));
            turns.extend(angles.clone().map(|angle| angle.cos() as f32 * factor));
            turns.extend(angles.map(|angle| angle.sin() as f32 * factor));
        }
        Self { half, turns }
    }

    /// Positions it holds.
    pub fn positions(&self) -> usize {
        if self.half == 0 { 0 } else { self.turns.len() / (2 * self.half) }
    }

    /// Turns one head at a position.
    ///
    /// # Panics
    /// For a position beyond the table.
    pub fn rotate(&self, head: &mut [f32], position: usize) {
        let half = self.half;
        let (cosines, sines) = self.turns[2 * half * position..][..2 * half].split_at(half);
        let (first, second) = head[..2 * half].split_at_mut(half);
        for i in 0..half {
            let (a, b) = (first[i], second[i]);
            first[i] = a * cosines[i] - b * sines[i];
            second[i] = b * cosines[i] + a * sines[i];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A turn keeps lengths, and the product of two turned vectors depends on the distance alone.
    #[test]
    fn products_depend_on_the_distance() {
        let table = RotaryTable::new(&[1.0, 0.1], 1.0, 40);
        let (q, k) = ([0.3f32, -1.0, 0.7, 0.2, 5.0], [1.0f32, 0.5, -0.4, 0.9, 6.0]);
        let product = |i, j| {
            let (mut q, mut k) = (q, k);
            table.rotate(&mut q, i);
            table.rotate(&mut k, j);
            assert_eq!((q[4], k[4]), (5.0, 6.0), "columns beyond the pairs stay");
            q.iter().zip(k).map(|(q, k)| q * k).sum::<f32>()
        };
        assert!((product(7, 3) - product(30, 26)).abs() < 1e-5);
        assert!((product(7, 3) - product(7, 4)).abs() > 1e-3);
        assert_eq!(table.positions(), 40);
    }
}
