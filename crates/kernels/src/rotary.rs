//! Rotary position embedding (Su et al. 2021, RoFormer): pairs of a head's columns are turned by an angle that grows with
//! the position. A partial one turns the first columns of a head and leaves the rest.

/// Which columns are a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pairs {
    /// Column i of the first half with column i of the second (transformers' `rotate_half`).
    #[default]
    Halves,
    /// Neighbours (GPT-J, and the original Llama).
    Interleaved,
}

/// Cosines and sines of every position's angles.
#[derive(Clone, Debug, Default)]
pub struct RotaryTable {
    /// Pairs of columns that are turned.
    half: usize,
    pairs: Pairs,
    /// `[positions][cosines of half, sines of half]`.
    turns: Vec<f32>,
}

impl RotaryTable {
    /// The table of `positions` positions: pair `i` turns by position · `frequencies[i]`; both results are multiplied with
    /// `factor` (1 unless a scaling says otherwise). Halves of the turned columns are pairs.
    pub fn new(frequencies: &[f32], factor: f32, positions: usize) -> Self {
        let half = frequencies.len();
        let mut turns = Vec::with_capacity(2 * half * positions);
        for position in 0..positions {
            // The angle is rounded to f32, as the models were trained with.
            let angles = frequencies.iter().map(|frequency| f64::from(position as f32 * frequency));
            turns.extend(angles.clone().map(|angle| angle.cos() as f32 * factor));
            turns.extend(angles.map(|angle| angle.sin() as f32 * factor));
        }
        Self { half, pairs: Pairs::Halves, turns }
    }

    /// The same turns of other pairs.
    #[must_use]
    pub fn of_pairs(self, pairs: Pairs) -> Self {
        Self { pairs, ..self }
    }

    /// Positions it holds.
    pub fn positions(&self) -> usize {
        if self.half == 0 { 0 } else { self.turns.len() / (2 * self.half) }
    }

    /// Columns that it turns.
    pub fn width(&self) -> usize {
        2 * self.half
    }

    /// Turns one head at a position.
    ///
    /// # Panics
    /// For a position beyond the table, and a head narrower than the turned columns.
    pub fn rotate(&self, head: &mut [f32], position: usize) {
        self.turn(head, position, 1.0);
    }

    /// The gradient of [`Self::rotate`]: turns one head back, and multiplies with the factor too.
    ///
    /// # Panics
    /// As [`Self::rotate`].
    pub fn rotate_backward(&self, head: &mut [f32], position: usize) {
        self.turn(head, position, -1.0);
    }

    #[inline(always)]
    pub(crate) fn turn(&self, head: &mut [f32], position: usize, direction: f32) {
        let half = self.half;
        let (cosines, sines) = self.turns[2 * half * position..][..2 * half].split_at(half);
        let head = &mut head[..2 * half];
        let turned = |a: f32, b: f32, i: usize| {
            let sine = direction * sines[i];
            [a * cosines[i] - b * sine, b * cosines[i] + a * sine]
        };
        match self.pairs {
            Pairs::Halves => {
                let (first, second) = head.split_at_mut(half);
                for i in 0..half {
                    [first[i], second[i]] = turned(first[i], second[i], i);
                }
            }
            Pairs::Interleaved => {
                for (i, pair) in head.chunks_exact_mut(2).enumerate() {
                    [pair[0], pair[1]] = turned(pair[0], pair[1], i);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIRS: [Pairs; 2] = [Pairs::Halves, Pairs::Interleaved];

    /// A turn keeps lengths, and the product of two turned vectors depends on the distance alone.
    #[test]
    fn products_depend_on_the_distance() {
        for pairs in PAIRS {
            let table = RotaryTable::new(&[1.0, 0.1], 1.0, 40).of_pairs(pairs);
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
            assert_eq!((table.positions(), table.width()), (40, 4));
        }
    }

    /// Pairs of neighbours are pairs of halves in another order.
    #[test]
    fn interleaved_pairs_are_halves_in_another_order() {
        let [halves, neighbours] = PAIRS.map(|pairs| RotaryTable::new(&[1.0, 0.3], 1.5, 9).of_pairs(pairs));
        let (mut a, mut b) = ([0.3f32, -1.0, 0.7, 0.2], [0.3f32, 0.7, -1.0, 0.2]);
        halves.rotate(&mut a, 8);
        neighbours.rotate(&mut b, 8);
        assert_eq!(a, [b[0], b[2], b[1], b[3]]);
    }

    /// dx·v = dy·(turned v) for any v: the gradient is the transpose, with the factor.
    #[test]
    fn the_gradient_is_the_transpose() {
        for pairs in PAIRS {
            let table = RotaryTable::new(&[1.0, 0.1], 1.25, 40).of_pairs(pairs);
            let (v, dy) = ([0.3f32, -1.0, 0.7, 0.2, 5.0], [1.0f32, 0.5, -0.4, 0.9, 6.0]);
            let (mut turned, mut dx) = (v, dy);
            table.rotate(&mut turned, 23);
            table.rotate_backward(&mut dx, 23);
            let dot = |a: [f32; 5], b: [f32; 5]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            assert!((dot(dx, v) - dot(dy, turned)).abs() < 1e-5);
        }
    }
}
